"""What a request turned out to be, noted by whoever finds out, read by whoever records it at the end."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

TRACE = "ytserver.trace"

Scope = MutableMapping[str, Any]


def note(scope: Scope | None, **fields: Any) -> None:
    """Note fields about the request (key_prefix, video_id, asset_id, tier, error). Later notes win.

    ``scope`` is the ASGI scope; a Django view finds it as ``request.META.get("asgi.scope")`` (None under the
    development server: then nothing is noted).
    """
    if scope is not None:
        scope.setdefault(TRACE, {}).update(fields)


def noted(scope: Scope) -> dict[str, Any]:
    """Everything noted about the request so far."""
    return dict(scope.get(TRACE, ()))
