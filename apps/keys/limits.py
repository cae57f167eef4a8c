"""Requests per hour: one Redis script decides, for every process and for the fast lane alike.

A key's requests are counted in ten-second buckets of one hash. A bucket counts until its last possible request is
out of the window, so never more than the limit is let through in any 3600 s, and a slot frees at most 10 s late.
Refused requests do not count. Redis's own clock decides.

While Redis is away each process counts for itself, in bounded memory, with its share of the limit
(limit / WEB_WORKERS): callers go on being served and limited, and none of them sees an error because of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from django.conf import settings
from redis.exceptions import NoScriptError, RedisError

from apps.core.errors import RateLimited
from apps.core.redis import redis_client
from apps.keys.authentication import KeyGrant
from apps.keys.local_limits import LocalLimiter

HOUR_S = 3600
BUCKET_S = 10
FAILURES_PER_MINUTE = 60
REDIS_PAUSE_S = 1.0  # after an error Redis is left alone for so long, so that requests do not queue up behind time-outs

# KEYS: the hash. ARGV: limit, window in buckets, bucket in ms, now in ms (0: Redis's clock).
# Fields: a count per bucket number; "total", "oldest" (first bucket that may hold a count), "newest".
# Returns {allowed 0|1, counted, ms until the next slot frees}.
SCRIPT = """
local limit, window, bucket_ms, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local bucket = math.floor(now / bucket_ms)
local state = redis.call('HMGET', KEYS[1], 'total', 'oldest', 'newest')
local total, oldest, newest = tonumber(state[1]) or 0, tonumber(state[2]) or bucket, tonumber(state[3]) or bucket
if newest > bucket + window or bucket > newest + window then
  redis.call('DEL', KEYS[1])
  total, oldest, newest = 0, bucket, bucket
end
bucket = math.max(bucket, newest)
now = math.max(now, bucket * bucket_ms)
while oldest < bucket do
  local count = tonumber(redis.call('HGET', KEYS[1], oldest))
  if count and oldest >= bucket - window then break end
  if count then
    total = total - count
    redis.call('HDEL', KEYS[1], oldest)
  end
  oldest = oldest + 1
end
local allowed = 0
local freed = oldest
if total < limit then
  allowed = 1
  total = total + 1
  redis.call('HINCRBY', KEYS[1], bucket, 1)
  redis.call('HSET', KEYS[1], 'total', total, 'oldest', oldest, 'newest', bucket)
  redis.call('PEXPIRE', KEYS[1], (window + 2) * bucket_ms)
else
  redis.call('HSET', KEYS[1], 'total', total, 'oldest', oldest)
  local left = total
  while freed <= bucket do
    left = left - (tonumber(redis.call('HGET', KEYS[1], freed)) or 0)
    if left < limit then break end
    freed = freed + 1
  end
end
return {allowed, total, (freed + window + 1) * bucket_ms - now}
"""
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324 - Redis names scripts by SHA-1


@dataclass(frozen=True, kw_only=True)
class LimitState:
    """Where a key stands. ``reset_s``: seconds until the oldest counted request leaves the window."""

    limit: int
    remaining: int
    reset_s: int


def script_arguments(grant: KeyGrant, *, now_s: float = 0) -> tuple[Any, ...]:
    """What follows EVALSHA's key count: the key's hash and the script's arguments. The fast lane pipelines the same."""
    return _arguments(_name(grant), grant.limit_per_hour, window_s=HOUR_S, bucket_s=BUCKET_S, now_s=now_s)


def _name(grant: KeyGrant) -> str:
    return f"yt:limit:{grant.prefix}"


def _arguments(name: str, limit: int, *, window_s: int, bucket_s: int, now_s: float = 0) -> tuple[Any, ...]:
    return name, limit, window_s // bucket_s, bucket_s * 1000, int(now_s * 1000)


def _evaluate(arguments: tuple[Any, ...]) -> list[int]:
    client = redis_client()
    try:
        answer: Any = client.evalsha(SCRIPT_SHA, 1, *arguments)
    except NoScriptError:  # a Redis that was started since
        answer = client.eval(SCRIPT, 1, *arguments)
    return [int(number) for number in answer]


async def _aevaluate(arguments: tuple[Any, ...], client: redis.asyncio.Redis) -> list[int]:
    pending: Any
    try:
        pending = client.evalsha(SCRIPT_SHA, 1, *arguments)
        answer = await pending
    except NoScriptError:
        pending = client.eval(SCRIPT, 1, *arguments)
        answer = await pending
    return [int(number) for number in answer]


def read_answer(answer: list[int], limit: int) -> LimitState:
    """Turn the script's answer into the state. Raises RateLimited when the script refused."""
    allowed, counted, free_in_ms = answer
    state = LimitState(limit=limit, remaining=max(0, limit - counted), reset_s=math.ceil(free_in_ms / 1000))
    if not allowed:
        error = RateLimited(retry_after_s=state.reset_s)
        error.limit_state = state
        raise error
    return state


class _RedisHealth:
    """Remembers for REDIS_PAUSE_S that Redis failed."""

    def __init__(self) -> None:
        self._away_until = 0.0

    def is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def note_failure(self) -> None:
        self._away_until = time.monotonic() + REDIS_PAUSE_S


_health = _RedisHealth()
_local = LocalLimiter(bucket_s=BUCKET_S)


def charge(grant: KeyGrant, *, now_s: float = 0) -> LimitState:
    """Count one request of a key, atomically over all processes. Raises RateLimited (state in ``limit_state``).

    ``now_s`` (UNIX seconds) replaces Redis's clock in tests. Never raises because Redis is away.
    """
    if _health.is_away():
        return _charge_locally(grant)
    try:
        answer = _evaluate(script_arguments(grant, now_s=now_s))
    except RedisError:
        _health.note_failure()
        return _charge_locally(grant)
    return read_answer(answer, grant.limit_per_hour)


async def acharge(grant: KeyGrant, client: redis.asyncio.Redis) -> LimitState:
    """``charge`` for the event loop."""
    if _health.is_away():
        return _charge_locally(grant)
    try:
        answer = await _aevaluate(script_arguments(grant), client)
    except RedisError:
        _health.note_failure()
        return _charge_locally(grant)
    return read_answer(answer, grant.limit_per_hour)


def peek(grant: KeyGrant) -> LimitState:
    """Where a key stands, without counting. What Redis does not know (or cannot say) reads as unused."""
    fields: Any = {}
    if not _health.is_away():
        try:
            fields = redis_client().hgetall(_name(grant))
        except RedisError:
            _health.note_failure()
    now = time.time()
    first = int(now // BUCKET_S) - HOUR_S // BUCKET_S
    counts = {int(name): int(count) for name, count in fields.items() if name.isdigit() and int(name) >= first}
    free_in_s = (min(counts) + HOUR_S // BUCKET_S + 1) * BUCKET_S - now if counts else 0
    remaining = max(0, grant.limit_per_hour - sum(counts.values()))
    return LimitState(limit=grant.limit_per_hour, remaining=remaining, reset_s=math.ceil(free_in_s))


def _charge_locally(grant: KeyGrant) -> LimitState:
    share = max(1, grant.limit_per_hour // settings.ENV.web_workers)
    return read_answer(_local.count(grant.prefix, share, window_s=HOUR_S), share)


def charge_failure(client_address: str) -> None:
    """Count a request without a good key. Raises RateLimited beyond FAILURES_PER_MINUTE of one address (IPv6: a /64).

    Good keys go on working from such an address: people behind one router share it, and nobody guesses 256 bits.
    """
    network = network_of(client_address)
    try:
        if _health.is_away():
            raise redis.ConnectionError
        answer = _evaluate(_arguments(f"yt:refused:{network}", FAILURES_PER_MINUTE, window_s=60, bucket_s=1))
    except RedisError:
        _health.note_failure()
        answer = _local.count(network, FAILURES_PER_MINUTE, window_s=60)
    allowed, _, free_in_ms = answer
    if not allowed:
        raise RateLimited(
            "Too many requests without a good API key came from your address.",
            retry_after_s=math.ceil(free_in_ms / 1000),
        )


def network_of(client_address: str) -> str:
    """What counts as one caller: an IPv4 address, or the /64 that an IPv6 customer has whole."""
    try:
        address = ipaddress.ip_address(client_address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def limit_headers(state: LimitState) -> dict[str, str]:
    """The headers of every keyed answer (draft-ietf-httpapi-ratelimit-headers-06)."""
    return {
        "RateLimit-Limit": str(state.limit),
        "RateLimit-Remaining": str(state.remaining),
        "RateLimit-Reset": str(state.reset_s),
    }
