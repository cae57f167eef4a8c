"""The live figures: what all web processes of the installation did in the last seconds and the last hour.

Sync, and cheap enough for once a second; run it in a thread when on an event loop.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apps.analytics import counting
from apps.analytics.active_users import ACTIVE_S, Activity
from apps.analytics.histogram import BUCKETS, quantile
from apps.core.redis import redis_client

RATE_S = 5  # rates are the mean of so many complete seconds
SHARE_STEPS = 6  # shares and times to first byte are of the last minute
PROCESS_ALIVE_S = 5.0
HISTORY_STEPS = counting.HISTORY_S // counting.STEP_S
TIER_NAMES = ("hot", "telegram", "external")


@dataclass(frozen=True, kw_only=True)
class LiveFigures:
    """Now. Rates are means of the last RATE_S complete seconds; shares, tiers and times cover the last minute."""

    at: float  # UNIX seconds
    requests_per_s: float  # answers, refused ones included
    bytes_per_s: float  # of bodies, handed to the network
    refused_per_s: float  # of requests_per_s: status 4xx, clients that left included
    errors_per_s: float  # of requests_per_s: status 5xx
    requests: int  # in the last minute
    error_rate: float  # 0 to 1: answers with status 5xx
    refused_rate: float  # 0 to 1: answers with status 4xx, clients that left included
    first_byte_p50_s: float | None  # None: no answer in the last minute
    first_byte_p95_s: float | None
    tiers: dict[str, int]  # answers by where the media was: hot, telegram, external
    hit_ratio: float | None  # 0 to 1: hot and telegram of all tiers; None: no media was asked for
    users: int  # keys and addresses active in the last ACTIVE_S seconds
    users_by_activity: dict[str, int]  # api, stream, websocket; somebody may be in several
    streams: int  # being sent now
    websockets: int  # open now


@dataclass(frozen=True, kw_only=True)
class LiveHistory:
    """A stretch of time in steps of ``step_s`` seconds, oldest first; every list has the same length.

    The last step is complete; the one that runs is not in it. Steps in which nothing happened are zeros (None in the
    times to first byte).
    """

    step_s: int
    starts: list[int]  # UNIX seconds
    requests_per_s: list[float]
    errors_per_s: list[float]  # status 5xx
    refused_per_s: list[float]  # status 4xx
    bytes_per_s: list[float]
    first_byte_p50_s: list[float | None]
    first_byte_p95_s: list[float | None]
    streams: list[float]  # mean number open at once
    users: list[int]  # active at once, as the worker counted them; zeros while no worker ran
    tiers: dict[str, list[int]]  # answers by tier


def live_figures(*, now: float | None = None) -> LiveFigures:
    """The figures of this moment over all processes. One pipelined read. Raises redis.RedisError.

    ``now`` (UNIX seconds) replaces the clock in tests.
    """
    now = time.time() if now is None else now
    second, step = int(now), int(now) // counting.STEP_S
    pipeline = redis_client().pipeline(transaction=False)
    for number in range(second - RATE_S, second):
        pipeline.hgetall(counting.second_key(number))
    for number in range(step - SHARE_STEPS, step + 1):
        pipeline.hgetall(counting.step_key(number))
    pipeline.hgetall(counting.PROCESSES)
    for name in (counting.USERS, *map(counting.users_key, Activity)):
        pipeline.zcount(name, now - ACTIVE_S, "+inf")
    answers: list[Any] = pipeline.execute()
    seconds = _sum(answers[:RATE_S])
    minute = _sum(answers[RATE_S : RATE_S + SHARE_STEPS + 1])
    processes, users, *by_activity = answers[RATE_S + SHARE_STEPS + 1 :]
    streams, websockets = _open_now(processes, now)
    tiers = {tier: minute[f"t:{tier}"] for tier in TIER_NAMES}
    times = _histogram(minute)
    return LiveFigures(
        at=now,
        requests_per_s=seconds["n"] / RATE_S,
        bytes_per_s=seconds["b"] / RATE_S,
        refused_per_s=seconds["e4"] / RATE_S,
        errors_per_s=seconds["e5"] / RATE_S,
        requests=minute["n"] - _passed(answers[RATE_S], now),
        error_rate=_share(minute["e5"], minute["n"]) or 0.0,
        refused_rate=_share(minute["e4"], minute["n"]) or 0.0,
        first_byte_p50_s=quantile(times, 0.5),
        first_byte_p95_s=quantile(times, 0.95),
        tiers=tiers,
        hit_ratio=_share(tiers["hot"] + tiers["telegram"], sum(tiers.values())),
        users=int(users),
        users_by_activity={kind.value: int(count) for kind, count in zip(Activity, by_activity, strict=True)},
        streams=streams,
        websockets=websockets,
    )


def live_history(*, steps: int = HISTORY_STEPS, now: float | None = None) -> LiveHistory:
    """The last hour at once, for charts that have just been opened. One pipelined read of 360 small hashes.

    Raises redis.RedisError. Too much for every second: ask for one step then, and add it when it is a new one.
    """
    now = time.time() if now is None else now
    end = int(now) // counting.STEP_S
    numbers = range(end - steps, end)
    pipeline = redis_client().pipeline(transaction=False)
    for number in numbers:
        pipeline.hgetall(counting.step_key(number))
    sums = [_sum([answer]) for answer in pipeline.execute()]
    times = [_histogram(step) for step in sums]
    return LiveHistory(
        step_s=counting.STEP_S,
        starts=[number * counting.STEP_S for number in numbers],
        requests_per_s=_rates(sums, "n"),
        errors_per_s=_rates(sums, "e5"),
        refused_per_s=_rates(sums, "e4"),
        bytes_per_s=_rates(sums, "b"),
        first_byte_p50_s=[quantile(counts, 0.5) for counts in times],
        first_byte_p95_s=[quantile(counts, 0.95) for counts in times],
        streams=_rates(sums, "ss"),
        users=[step["users"] for step in sums],
        tiers={tier: [step[f"t:{tier}"] for step in sums] for tier in TIER_NAMES},
    )


def _passed(oldest: dict[bytes, bytes], now: float) -> int:
    """How many answers of the oldest step are more than a minute ago, as if they had come evenly."""
    return round(int(oldest.get(b"n", 0)) * (now % counting.STEP_S) / counting.STEP_S)


def _sum(hashes: Iterable[dict[bytes, bytes]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for fields in hashes:
        for name, amount in fields.items():
            total[name.decode()] += int(amount)
    return total


def _histogram(counts: Counter[str]) -> list[int]:
    return [counts[f"h:{bucket}"] for bucket in range(BUCKETS)]


def _rates(steps: list[Counter[str]], name: str) -> list[float]:
    return [step[name] / counting.STEP_S for step in steps]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _open_now(processes: dict[bytes, bytes], now: float) -> tuple[int, int]:
    """Streams and websockets of the processes that spoke lately; one that was killed is forgotten in seconds."""
    streams = websockets = 0
    for told in processes.values():
        at, its_streams, its_websockets = told.split()
        if abs(now - float(at)) <= PROCESS_ALIVE_S:
            streams += int(its_streams)
            websockets += int(its_websockets)
    return streams, websockets
