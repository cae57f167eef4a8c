"""What limits do while Redis is away: each process counts for itself, or refuses (LIMITS_ON_REDIS_LOSS)."""

from __future__ import annotations

import time

from django.conf import settings

from apps.core.errors import NotReady
from apps.keys.local_limits import LocalLimiter

REDIS_PAUSE_S = 1.0  # after an error Redis is left alone for so long, so that requests do not queue up behind time-outs
RETRY_AFTER_S = 2


class RedisHealth:
    """Remembers for REDIS_PAUSE_S that Redis failed."""

    def __init__(self) -> None:
        self._away_until = 0.0

    def is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def note_failure(self) -> None:
        self._away_until = time.monotonic() + REDIS_PAUSE_S


health = RedisHealth()
local_counts = LocalLimiter()


def share_of(limit: int) -> int:
    """What of a limit this process may let through by itself. Raises NotReady when nothing may be (``deny``)."""
    if settings.ENV.limits_on_redis_loss == "deny":
        raise NotReady("Limits cannot be checked just now. Try again soon.", retry_after_s=RETRY_AFTER_S)
    workers: int = settings.ENV.web_workers
    return max(1, limit // workers)
