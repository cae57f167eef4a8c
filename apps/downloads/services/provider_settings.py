"""Switching sources on and off and ordering them, while everything runs. Each change is in the audit log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter, NotFound
from apps.downloads.documents import ProviderSettings
from apps.downloads.providers.arrangement import arrange_providers, forget_arrangement
from apps.downloads.providers.health import ProviderHealth, read_health


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


@dataclass(frozen=True, kw_only=True)
class ProviderView:
    """A source as the API and the admin show it. ``position``: 1 is asked first; None when it is off."""

    name: str
    enabled: bool
    position: int | None
    health: ProviderHealth

    @property
    def next_trial_s(self) -> float | None:
        """Seconds until some process tries it again; None when none leaves it alone."""
        return max(0.0, self.health.paused_until[0] - time.time()) if self.health.paused_until else None

    @property
    def last_errors(self) -> list[dict[str, Any]]:
        """The newest three, each with ``code``, ``message``, ``took_s`` and ``when``."""
        errors = self.health.recent_errors[:3]
        return [{**error, "when": datetime.fromtimestamp(error["at"], UTC)} for error in errors]

    @property
    def circuit_words(self) -> str:
        """The state of its circuit in a plain sentence."""
        health = self.health
        if health.on_trial:
            return "On trial: one question is being asked to see whether it works again."
        if health.paused_until:
            count = len(health.paused_until)
            where = "one process" if count == 1 else f"{count} processes"
            return f"Left alone by {where} after failing again and again. Next trial in {self.next_trial_s:.0f} s."
        if health.half_open:
            return "Half open: the pause is over, the next question is a trial."
        return "Closed: it is asked as usual."


def view_providers() -> list[ProviderView]:
    """Every source that PROVIDERS names, those in use first, in their order. Raises what Redis raises."""
    names = configured_providers()
    used = list(arrange_providers(names))
    return [
        ProviderView(
            name=name,
            enabled=name in used,
            position=used.index(name) + 1 if name in used else None,
            health=read_health(name),
        )
        for name in (*used, *(name for name in names if name not in used))
    ]


def move_provider(name: str, *, up: bool, actor: str, address: str = "") -> None:
    """One place up or down among all sources. At the end already: nothing changes. Raises NotFound."""
    order = [view.name for view in view_providers()]
    if name not in order:
        raise NotFound(f"PROVIDERS does not name {name}.")
    here = order.index(name)
    there = here + (-1 if up else 1)
    if 0 <= there < len(order):
        order[here], order[there] = order[there], order[here]
        order_providers(order, actor=actor, address=address)


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
