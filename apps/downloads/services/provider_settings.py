"""Switching sources on and off and ordering them, while everything runs. Each change is in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter, NotFound
from apps.downloads.documents import ProviderSettings
from apps.downloads.providers.arrangement import arrange_providers, forget_arrangement


def configured_providers() -> tuple[str, ...]:
    """The names in PROVIDERS. Others cannot be switched on: they have no settings."""
    return tuple(settings.ENV.providers)


def set_provider_enabled(name: str, *, enabled: bool, actor: str, address: str = "") -> None:
    """In effect in every process within two seconds. Idempotent. Raises NotFound for one that PROVIDERS lacks."""
    if name not in configured_providers():
        raise NotFound(f"PROVIDERS does not name {name}.")
    before = name in arrange_providers(configured_providers())
    ProviderSettings.objects(name=name).update_one(set__enabled=enabled, set__updated_at=utcnow(), upsert=True)
    forget_arrangement()
    what = "provider.enable" if enabled else "provider.disable"
    _record(what, name, {"enabled": before}, {"enabled": enabled}, actor, address)


def order_providers(names: Sequence[str], *, actor: str, address: str = "") -> None:
    """Try the sources in this order from now on. Raises InvalidParameter unless each of PROVIDERS is named once."""
    known = configured_providers()
    if sorted(names) != sorted(known):
        raise InvalidParameter(f"order: name each of {', '.join(sorted(known))} once.", parameter="order")
    before = list(arrange_providers(known))
    for position, name in enumerate(names, start=1):
        ProviderSettings.objects(name=name).update_one(set__position=position, set__updated_at=utcnow(), upsert=True)
    forget_arrangement()
    _record("provider.order", ",".join(names), {"order": before}, {"order": list(names)}, actor, address)


def _record(what: str, target: str, before: dict[str, Any], after: dict[str, Any], actor: str, address: str) -> None:
    audit.record(
        actor=actor,
        action=what,
        target_kind="provider",
        target_id=target,
        before=before,
        after=after,
        address=address,
    )
