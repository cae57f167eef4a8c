"""Fetches that a key waits for at the same time: one place for each, taken before the fetch is begun or joined.

A place is a member of a set in Redis, so no race lets more through than the limit. It is given back when the fetch
ends; what was never given back (a process was killed) is found when the set is full, by asking which fetches there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from apps.core.errors import TooManyJobs
from apps.core.redis import redis_client
from apps.keys.grants import KeyGrant
from apps.keys.redis_loss import health, share_of

RETRY_AFTER_S = 10
YOUNG_S = 20  # a place may be taken so long before its fetch is found in MongoDB
SET_LIFE_S = 7 * 86_400

# KEYS: the sorted set. ARGV: the asset, the limit, life of the set in s, age in ms from which places are doubtful.
# Returns {1} when the asset has a place now, else the doubtful ones.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return {0, unpack(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, 1000))}
  end
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {1}
"""
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts by SHA-1


def set_name(prefix: str) -> str:
    """The set of a key's places."""
    return f"yt:jobs:{prefix}"


def take_job_slot(grant: KeyGrant, asset_id: str, *, running: Callable[[], set[str]]) -> None:
    """Take a place for the fetch of an asset, unless it has one. Raises TooManyJobs.

    ``running`` tells the assets whose fetches this key waits for, by MongoDB. It alone decides, as well as it can,
    while Redis is away (NotReady when LIMITS_ON_REDIS_LOSS is ``deny``).
    """
    if grant.concurrent_jobs is None:
        return
    try:
        if health.is_away():
            raise RedisError
        has_place = _take(grant.prefix, asset_id, grant.concurrent_jobs, running)
    except RedisError:
        health.note_failure()
        share_of(grant.concurrent_jobs)
        has_place = len(running() - {asset_id}) < grant.concurrent_jobs
    if not has_place:
        raise TooManyJobs(retry_after_s=RETRY_AFTER_S)


def free_job_slots(prefixes: Iterable[str], asset_id: str) -> None:
    """The fetch of this asset has ended. Never fails: what stays is found when it is in the way."""
    names = [set_name(prefix) for prefix in prefixes]
    if not names or health.is_away():
        return
    try:
        with redis_client().pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.zrem(name, asset_id)
            pipeline.execute()
    except RedisError:
        health.note_failure()


def _take(prefix: str, asset_id: str, limit: int, running: Callable[[], set[str]]) -> bool:
    arguments = (asset_id, limit, SET_LIFE_S, YOUNG_S * 1000)
    taken, *doubtful = _evaluate(prefix, arguments)
    if taken or not doubtful:
        return bool(taken)
    still = running()
    gone = [member for member in doubtful if member.decode() not in still]
    if not gone:
        return False
    redis_client().zrem(set_name(prefix), *gone)
    return bool(_evaluate(prefix, arguments)[0])


def _evaluate(prefix: str, arguments: tuple[str | int, ...]) -> list[Any]:
    client: Any = redis_client()
    try:
        return list(client.evalsha(SCRIPT_SHA, 1, set_name(prefix), *arguments))
    except NoScriptError:
        return list(client.eval(SCRIPT, 1, set_name(prefix), *arguments))
