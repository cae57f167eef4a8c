"""Who is active in this web process: a key from an address, and with what. Addresses are kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from enum import StrEnum
from functools import lru_cache
from itertools import islice

from django.conf import settings

from apps.keys.limits import network_of

REFRESH_S = 4.0  # somebody who stays active is written so often
ACTIVE_S = 10.0  # and counts for so long after the last time
MAX_SEEN = 50_000
NO_KEY = "-"


class Activity(StrEnum):
    API = "api"
    STREAM = "stream"
    WEBSOCKET = "websocket"


def user_id(key_prefix: str | None, address: str) -> str:
    """``<key prefix>:<hash>``. The hash is keyed (SECRET_KEY), so that nobody finds the address by trying them all."""
    return f"{key_prefix or NO_KEY}:{_address_hash(address)}"


@lru_cache(maxsize=20_000)
def _address_hash(address: str) -> str:
    key = b"ytserver active users " + str(settings.SECRET_KEY).encode()
    return hmac.new(key, network_of(address).encode(), hashlib.sha256).hexdigest()[:16]


class ActiveUsers:
    """Who did something lately or has something open. Bounded, and each is written at most every REFRESH_S seconds."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, Activity]] = Counter()
        self._seen: set[tuple[str, Activity]] = set()
        self._waiting: dict[tuple[str, Activity], float] = {}  # written lately; when they were seen since then
        self._written: dict[tuple[str, Activity], float] = {}

    def seen(self, user: str, activity: Activity) -> None:
        """Something short happened."""
        if len(self._seen) < MAX_SEEN:
            self._seen.add((user, activity))

    def opened(self, user: str, activity: Activity) -> None:
        """Something that lasts has begun; ``closed`` ends it."""
        self._open[user, activity] += 1

    def closed(self, user: str, activity: Activity) -> None:
        self._open[user, activity] -= 1
        if self._open[user, activity] <= 0:
            del self._open[user, activity]
        self.seen(user, activity)

    def take_due(self, now: float) -> dict[Activity, dict[str, float]]:
        """Who is to be written now (UNIX seconds), by activity, each with when they were active last: who is written
        late does not count for longer. They count as written. Call it each second: what was seen since then is of now.
        """
        self._written = {who: at for who, at in self._written.items() if 0 <= now - at < REFRESH_S}
        active = self._waiting | dict.fromkeys(self._seen | self._open.keys(), now)
        due: dict[Activity, dict[str, float]] = {}
        for who, at in active.items():
            if who not in self._written:
                self._written[who] = now
                due.setdefault(who[1], {})[who[0]] = at
        later = (who for who in active if self._written[who] != now and who not in self._open)
        self._waiting = {who: active[who] for who in islice(later, MAX_SEEN)}
        self._seen = set()
        return due
