"""Whose question to the sources goes first: a few of each key at once, the others of a key behind those of all keys.

Each key has a set in Redis of the questions that wait for their answer on its behalf; a member ends with the answer, or
after LIFE_S. A key whose set is full is told ``overloaded``. Who asks what is being asked already pays nothing; when
that question stands in the second lane, a key with few of its own brings it forward.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from apps.core.redis import redis_client

FEW = 4  # questions of one key that go first
MOST = 500  # of one key, in both lanes
LIFE_S = 30  # a little longer than anybody waits for an answer
RESEND_S = 5  # a sent task that has not begun by then may be lost: the next caller sends another
RESEND_LATER_S = 20


class Lane(IntEnum):
    """Redis transport's priorities: 0 (the default) is taken first."""

    FIRST = 0
    LATER = 3
    LAST = 9  # nobody waits for these


class KeyFull(Exception):
    """This key has MOST questions waiting."""


# KEYS: the mark of a sent task, the question's lane, its askers, the key's set.
# ARGV: the question, the key's prefix ("": no limits), then the numbers above.
# Returns a lane; -1: there is nothing to do; -2: the key's set is full.
_TAKE = """
local question, prefix, now = ARGV[1], ARGV[2], tonumber(redis.call('time')[1])
local few, most, life = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local resend = {['0'] = ARGV[6], ['3'] = ARGV[7]}
local count, mine = 0, false
if prefix ~= '' then
  redis.call('zremrangebyscore', KEYS[4], '-inf', now - life)
  count, mine = redis.call('zcard', KEYS[4]), redis.call('zscore', KEYS[4], question)
end
local lane = redis.call('get', KEYS[2])
if lane and (lane == '0' or mine or count >= few) then
  if redis.call('set', KEYS[1], 1, 'nx', 'ex', resend[lane]) then return tonumber(lane) end
  return -1
end
if count >= most then return -2 end
lane = count < few and '0' or '3'
if prefix ~= '' then
  redis.call('zadd', KEYS[4], now, question)
  redis.call('expire', KEYS[4], life)
  redis.call('sadd', KEYS[3], prefix)
  redis.call('expire', KEYS[3], life)
end
redis.call('set', KEYS[2], lane, 'ex', life)
redis.call('set', KEYS[1], 1, 'ex', resend[lane])
return tonumber(lane)
"""


def take_lane(kind: str, name: str, *, prefix: str) -> Lane | None:
    """In which lane to send the question now; None when it is on its way. Raises KeyFull. One atomic script."""
    client: Any = redis_client()
    keys = (sent_name(kind, name), _lane_name(kind, name), _askers_name(kind, name), _set_name(prefix))
    numbers = (FEW, MOST, LIFE_S, RESEND_S, RESEND_LATER_S)
    taken = int(client.eval(_TAKE, len(keys), *keys, f"{kind}:{name}", prefix, *numbers))
    if taken == -2:
        raise KeyFull
    return None if taken == -1 else Lane(taken)


def leave_lane(kind: str, name: str) -> None:
    """The question is answered, or could not be sent: it counts for nobody any more."""
    client: Any = redis_client()
    askers = client.smembers(_askers_name(kind, name))
    with client.pipeline(transaction=False) as pipeline:
        pipeline.delete(sent_name(kind, name), _lane_name(kind, name), _askers_name(kind, name))
        for prefix in askers:
            pipeline.zrem(_set_name(prefix.decode()), f"{kind}:{name}")
        pipeline.execute()


def sent_name(kind: str, name: str) -> str:
    """The mark that a task was sent a moment ago."""
    return f"yt:{kind}:sent:{name}"


def _lane_name(kind: str, name: str) -> str:
    return f"yt:{kind}:lane:{name}"


def _askers_name(kind: str, name: str) -> str:
    return f"yt:{kind}:askers:{name}"


def _set_name(prefix: str) -> str:
    return f"yt:flights:of:{prefix}"
