"""Which sources are on, in which order, right now: PROVIDERS, and over it what an operator decided meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import structlog
from pymongo.errors import PyMongoError

from apps.downloads.documents import ProviderSettings
from apps.downloads.selectors import provider_settings

MAX_AGE_S = 1.0  # a change is in effect everywhere within two seconds

log = structlog.get_logger(__name__)
_lock = threading.Lock()
_known: tuple[float, list[ProviderSettings]] = (float("-inf"), [])


def arrange_providers(names: Sequence[str]) -> Sequence[str]:
    """Of ``names`` (the order of PROVIDERS) those that are on, in the operator's order. At most MAX_AGE_S old.

    While MongoDB is away, what was decided last counts.
    """
    decided = {settings.name: settings for settings in _read()}

    def place(name: str) -> tuple[bool, int]:
        position = decided[name].position if name in decided else None
        return position is None, position or 0

    return [name for name in sorted(names, key=place) if name not in decided or decided[name].enabled]


def forget_arrangement() -> None:
    """Ask MongoDB again at the next use, in this process."""
    global _known
    with _lock:
        _known = (float("-inf"), [])


def _read() -> list[ProviderSettings]:
    global _known
    with _lock:
        if time.monotonic() - _known[0] >= MAX_AGE_S:
            try:
                _known = (time.monotonic(), provider_settings())
            except PyMongoError as error:
                log.warning("order of sources not read", reason=type(error).__name__)
                _known = (time.monotonic(), _known[1])
        return _known[1]
