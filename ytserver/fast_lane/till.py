"""Counting the lane's requests and recording their events: one script call for all that came in at the same time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from apps.analytics.events import append_command
from apps.core.errors import RateLimited
from apps.core.gather import Gatherer
from apps.core.redis import make_async_redis
from apps.keys.authentication import KeyGrant
from apps.keys.limits import LimitState, read_answer, script_arguments
from apps.keys.windows import SCRIPT

MAX_BATCH = 100  # a script keeps Redis to itself: about 3 ms
MAX_WAITING = 10_000
REDIS_PAUSE_S = 1.0

# Runs the limits' own script for each request in turn, and appends the event of each that it lets through.
# ARGV: the number of words of the appending command, those words; then for each request the number of its keys, the
# number of its arguments, the arguments, its event. Returns the limits' answers.
BATCH_SCRIPT = f"""
local function count(KEYS, ARGV)
{SCRIPT}
end
local words = tonumber(ARGV[1])
local append = {{unpack(ARGV, 2, words + 1)}}
local answers, key, at = {{}}, 1, words + 2
while at <= #ARGV do
  local keys, arguments = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local answer = count({{unpack(KEYS, key, key + keys - 1)}}, {{unpack(ARGV, at + 2, at + 1 + arguments)}})
  key = key + keys
  at = at + 2 + arguments
  if answer[1] == 0 then
    append[words + 1] = ARGV[at]
    redis.call(unpack(append))
  end
  answers[#answers + 1] = answer
  at = at + 1
end
return answers
"""
BATCH_SHA = hashlib.sha1(BATCH_SCRIPT.encode()).hexdigest()  # noqa: S324 - Redis names scripts by SHA-1
_APPEND = append_command("")[:-1]


class Sale(NamedTuple):
    """A request to count, and the event to append when it is let through."""

    grant: KeyGrant
    event: str


class Till:
    """Belongs to one event loop. After an error Redis is left alone for REDIS_PAUSE_S: the lane is closed meanwhile."""

    def __init__(self) -> None:
        self._client: redis.asyncio.Redis | None = None
        self._gatherer = Gatherer(self._charge_all, max_batch=MAX_BATCH)
        self._pending = 0
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._pending < MAX_WAITING and time.monotonic() >= self._closed_until

    async def charge(self, grant: KeyGrant, event: str) -> LimitState | None:
        """Count one request and append its event, both or neither. None: refused by the limits, or Redis is away.

        When Redis does not answer, it may all the same have counted and appended: the event's id tells it apart.
        """
        self._pending += 1
        try:
            return read_answer(await self._gatherer.submit(Sale(grant, event)), grant)
        except RateLimited:
            return None
        except (RedisError, OSError):
            self._closed_until = time.monotonic() + REDIS_PAUSE_S
            return None
        finally:
            self._pending -= 1

    async def aclose(self) -> None:
        await self._gatherer.aclose()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _charge_all(self, sales: Sequence[Sale]) -> list[list[int]]:
        if self._client is None:
            self._client = make_async_redis(retries=0)  # a script sent twice would count twice
        keys: list[Any] = []
        arguments: list[Any] = [len(_APPEND), *_APPEND]
        for grant, event in sales:
            count, *rest = script_arguments(grant)
            keys += rest[: int(count)]
            own = rest[int(count) :]
            arguments += (count, len(own), *own, event)
        call: Any
        try:
            call = self._client.evalsha(BATCH_SHA, len(keys), *keys, *arguments)
            answers = await call
        except NoScriptError:
            call = self._client.eval(BATCH_SCRIPT, len(keys), *keys, *arguments)
            answers = await call
        return list(answers)
