"""Counting what this web process does, and telling the others once a second in one pipelined Redis write.

A request costs a few additions in memory. What is written are sums of all that happened since the last write; Redis
adds up the processes:

- ``yt:live:1:<second>`` and ``yt:live:10:<ten seconds>``: hashes of counts that expire.
- ``yt:live:totals``: counts since Redis was new, for Prometheus. Its fields are bounded: see ``LiveCounters``.
- ``yt:live:processes``: what is open right now, one field a process, with the time it was written.
- ``yt:live:users`` and one more for each activity: who was last seen when (sorted sets of key and address hash).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from bisect import bisect_left
from collections import Counter
from contextlib import suppress

import redis
import redis.asyncio

from apps.analytics.active_users import ActiveUsers, Activity
from apps.analytics.histogram import BOUNDS_S, BUCKETS, bucket_of

logger = logging.getLogger(__name__)

PREFIX = "yt:live:"
TOTALS = f"{PREFIX}totals"
PROCESSES = f"{PREFIX}processes"
USERS = f"{PREFIX}users"
SECOND_KEPT_S = 30
STEP_S = 10
HISTORY_S = 3600
STEP_KEPT_S = HISTORY_S + 120
PROCESS_KEPT_S = 60
USERS_KEPT_S = 60
PERIOD_S = 1.0
TIERS = frozenset({"hot", "telegram", "external"})
MAX_TOTALS = 2000  # fields that one process adds to: more would be a fault of ours


def second_key(second: int) -> str:
    return f"{PREFIX}1:{second}"


def step_key(step: int) -> str:
    return f"{PREFIX}{STEP_S}:{step}"


def users_key(activity: Activity) -> str:
    return f"{USERS}:{activity.value}"


class AnswerTally:
    """Good answers of one kind since the last write: what ``sent`` and ``answered`` count of them, in few steps."""

    __slots__ = ("buckets", "count", "size_bytes", "sum_us")

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self.sum_us = 0
        self.buckets = [0] * BUCKETS

    def add(self, first_byte_s: float, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes
        self.sum_us += int(first_byte_s * 1_000_000)
        self.buckets[bisect_left(BOUNDS_S, first_byte_s)] += 1


class LiveCounters:
    """What happened since the last write, and what is open. Belongs to one event loop.

    ``recent``: n (answers), e4, e5, b (bytes), ss (open streams, added up each second), h:<bucket> (time to first
    byte), t:<tier>. ``totals``: r:<route>|<status>, e:<error code>, t:<tier>, h:<kind>:<bucket>, hs:<kind> (sum in
    microseconds), b:<kind>. Routes come from ``route_of`` and codes from our errors, so both are few.
    """

    def __init__(self) -> None:
        self.recent: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.open: Counter[Activity] = Counter()
        self.users = ActiveUsers()
        self._tallies: dict[tuple[str, int, str, str], AnswerTally] = {}

    def tally(self, *, route: str, status: int, kind: str, tier: str) -> AnswerTally:
        """For good answers that are many and alike; ``tier`` may be empty. Ask for it at each answer."""
        alike = (route, status, kind, tier)
        tally = self._tallies.get(alike)
        if tally is None:
            tally = self._tallies[alike] = AnswerTally()
        return tally

    def sent(self, size_bytes: int, kind: str) -> None:
        """Bytes of a body were handed to the server."""
        self.recent["b"] += size_bytes
        self._add_total(f"b:{kind}", size_bytes)

    def answered(
        self, *, route: str, status: int, kind: str, tier: str | None, error: str | None, first_byte_s: float | None
    ) -> None:
        """An answer is complete (or its client left: 499). ``kind``: api or stream."""
        self.recent["n"] += 1
        self._add_total(f"r:{route}|{status}", 1)
        if status >= 400:
            self.recent["e5" if status >= 500 else "e4"] += 1
        if error:
            self._add_total(f"e:{error}", 1)
        if tier in TIERS:
            self.recent[f"t:{tier}"] += 1
            self._add_total(f"t:{tier}", 1)
        if first_byte_s is not None:
            bucket = bucket_of(first_byte_s)
            self.recent[f"h:{bucket}"] += 1
            self._add_total(f"h:{kind}:{bucket}", 1)
            self._add_total(f"hs:{kind}", int(first_byte_s * 1_000_000))

    def _add_total(self, name: str, amount: int) -> None:
        if name in self.totals or len(self.totals) < MAX_TOTALS:
            self.totals[name] += amount

    def take(self) -> tuple[Counter[str], Counter[str]]:
        """What is to be written now; from here on it counts anew."""
        tallies, self._tallies = self._tallies, {}
        for (route, status, kind, tier), tally in tallies.items():
            self._add_tally(route, status, kind, tier, tally)
        taken = self.recent, self.totals
        self.recent, self.totals = Counter(), Counter()
        return taken

    def _add_tally(self, route: str, status: int, kind: str, tier: str, tally: AnswerTally) -> None:
        self.recent["n"] += tally.count
        self.recent["b"] += tally.size_bytes
        self._add_total(f"b:{kind}", tally.size_bytes)
        self._add_total(f"r:{route}|{status}", tally.count)
        if tier in TIERS:
            self.recent[f"t:{tier}"] += tally.count
            self._add_total(f"t:{tier}", tally.count)
        for bucket, count in enumerate(tally.buckets):
            if count:
                self.recent[f"h:{bucket}"] += count
                self._add_total(f"h:{kind}:{bucket}", count)
        self._add_total(f"hs:{kind}", tally.sum_us)

    def put_back(self, taken: tuple[Counter[str], Counter[str]]) -> None:
        """It could not be written: it goes along with the next write. Memory stays bounded, as the names are."""
        self.recent.update(taken[0])
        self.totals.update(taken[1])


class LivePublisher:
    """Writes a process's counts every second, as long as it runs. Nothing is written while nothing happens."""

    def __init__(self, counters: LiveCounters, client: redis.asyncio.Redis) -> None:
        self._counters = counters
        self._client = client
        self._process = secrets.token_hex(6)
        self._told_open = False
        self._failing = False
        self._stopping = False

    def stop(self) -> None:
        """``run`` ends. The Redis library can swallow a cancellation that comes while an answer does."""
        self._stopping = True

    async def run(self) -> None:
        """Never ends by itself; after ``stop`` at the next chance, also when a cancellation got lost on the way."""
        while not self._stopping:
            await asyncio.sleep(PERIOD_S - time.time() % PERIOD_S)
            await self.publish()

    async def publish(self, *, now: float | None = None) -> None:
        """One write of everything since the last one. Raises nothing: without Redis it is added to the next one."""
        now = time.time() if now is None else now
        taken = self._counters.take()
        users = self._counters.users.take_due(now)
        try:
            await self._write(now, taken, users)
            self._failing = False
        except (redis.RedisError, OSError) as error:
            self._counters.put_back(taken)
            if not self._failing:
                logger.warning("live figures are not written: %s", type(error).__name__)
            self._failing = True

    async def aclose(self) -> None:
        """The last counts, and word that nothing is open here any more."""
        self._counters.open.clear()
        await self.publish()
        with suppress(redis.RedisError, OSError):
            await self._client.hdel(PROCESSES, self._process)

    async def _write(
        self, now: float, taken: tuple[Counter[str], Counter[str]], users: dict[Activity, dict[str, float]]
    ) -> None:
        recent, totals = taken
        streams = self._counters.open[Activity.STREAM]
        counts = {**recent, "ss": streams} if streams else dict(recent)
        is_open = sum(self._counters.open.values()) > 0
        pipeline = self._client.pipeline(transaction=True)  # all or nothing: half of it would be written twice
        if counts:
            second, step = second_key(int(now)), step_key(int(now) // STEP_S)
            for name, amount in counts.items():
                pipeline.hincrby(second, name, amount)
                pipeline.hincrby(step, name, amount)
            pipeline.expire(second, SECOND_KEPT_S)
            pipeline.expire(step, STEP_KEPT_S)
        for name, amount in totals.items():
            pipeline.hincrby(TOTALS, name, amount)
        if is_open or self._told_open:
            websockets = self._counters.open[Activity.WEBSOCKET]
            pipeline.hset(PROCESSES, self._process, f"{now:.3f} {streams} {websockets}")
            pipeline.expire(PROCESSES, PROCESS_KEPT_S)
        _add_users(pipeline, now, users)
        if len(pipeline):
            await pipeline.execute()
        self._told_open = is_open


def _add_users(pipeline: redis.asyncio.client.Pipeline, now: float, users: dict[Activity, dict[str, float]]) -> None:
    if not users:
        return
    everybody: dict[str, float] = {}
    for seen in users.values():
        for user, at in seen.items():
            everybody[user] = max(at, everybody.get(user, 0.0))
    for name, seen in [(USERS, everybody), *((users_key(kind), seen) for kind, seen in users.items())]:
        pipeline.zadd(name, seen, gt=True)  # another process may have seen them later
        pipeline.zremrangebyscore(name, "-inf", now - USERS_KEPT_S)
        pipeline.expire(name, USERS_KEPT_S * 2)
