"""Signed links that name a wish ("best", "m4a") instead of an asset, for answers given before metadata is known."""

from __future__ import annotations

import time

from apps.core.tunables import link_ttl_s
from apps.downloads.services.media import MediaAsk
from apps.streaming.links import sign_link

_WISH = "wish:"  # no asset id begins like this


def open_link(ask: MediaAsk, *, base_url: str, key_prefix: str, attachment: bool, bound_to: str = "") -> str:
    """A link that works as soon as there are bytes: whoever opens it waits while the file is found and fetched."""
    signed = sign_link(
        path=f"/stream/{ask.kind.value}/{ask.video_id}",
        asset_id=f"{_WISH}{ask.wish or ''}",
        key_prefix=key_prefix,
        expires_at=int(time.time()) + link_ttl_s(),
        attachment=attachment,
        bound_to=bound_to,
    )
    return f"{base_url}{signed}"


def read_wish(asset_id: str) -> str | None:
    """The wish that a link's ``asset_id`` stands for ("" is no particular one); None when it names an asset."""
    return asset_id.removeprefix(_WISH) if asset_id.startswith(_WISH) else None
