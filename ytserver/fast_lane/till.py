"""Counting the lane's requests and recording their events: one script call for all that came in at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from apps.analytics.events import APPEND_WORDS
from apps.core.errors import RateLimited
from apps.core.redis import make_async_redis
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, read_answer, script_arguments
from apps.keys.windows import SCRIPT, Arguments

logger = logging.getLogger(__name__)

MAX_BATCH = 100  # a script keeps Redis to itself: about 3 ms
MAX_WAITING = 10_000
REDIS_PAUSE_S = 1.0

# Runs the limits' own script for each request in turn, and appends the event of each that it lets through.
# ARGV: APPEND_WORDS; a JSON list with an entry for each request: the number
# of its keys, and the limits' arguments as texts; then the events. Returns the limits' answers as one text: the numbers
# of each request, with a space between, a line each (a list of lists would cost the reader several times as much).
BATCH_SCRIPT = f"""
local function count(KEYS, ARGV)
{SCRIPT}
end
local append = cjson.decode(ARGV[1])
local words = #append
local answers, key = {{}}, 1
for number, request in ipairs(cjson.decode(ARGV[2])) do
  local keys = request[1]
  local answer = count({{unpack(KEYS, key, key + keys - 1)}}, request[2])
  key = key + keys
  if answer[1] == 0 then
    append[words + 1] = ARGV[2 + number]
    redis.call(unpack(append))
  end
  answers[number] = table.concat(answer, ' ')
end
return table.concat(answers, '\\n')
"""
BATCH_SHA = hashlib.sha1(BATCH_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts by SHA-1


@lru_cache(maxsize=20_000)
def _packed(arguments: Arguments) -> tuple[tuple[str, ...], str]:
    """The keys of a request, and its entry in the script's list."""
    count, *rest = arguments
    keys = [str(key) for key in rest[: int(count)]]
    return tuple(keys), json.dumps([count, [str(argument) for argument in rest[int(count) :]]])


class Sale(NamedTuple):
    """A request to count, and the event to append when it is let through. ``done`` is told how it ended, once."""

    grant: KeyGrant
    event: str
    done: Callable[[LimitState | None], None]


class Till:
    """Belongs to one event loop. After an error Redis is left alone for REDIS_PAUSE_S: the lane is closed meanwhile."""

    def __init__(self) -> None:
        self._client: redis.asyncio.Redis | None = None
        self._waiting: deque[Sale] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        return len(self._waiting) < MAX_WAITING and time.monotonic() >= self._closed_until

    def charge(self, grant: KeyGrant, event: str, done: Callable[[LimitState | None], None]) -> None:
        """Count one request and append its event, both or neither. Returns at once; ``done`` is called when it is known
        how it went: the state, or None when the limits refuse, or Redis is away.

        When Redis does not answer, it may all the same have counted and appended: the event's id tells it apart.
        """
        self._waiting.append(Sale(grant, event, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._serve(), name="till")

    async def aclose(self) -> None:
        """Nobody who still waits is told anything: the server has cut their connections."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _serve(self) -> None:
        """One batch is on its way at a time, the next one fills meanwhile, and leaves before the last one's callers
        are told: Redis and they are busy at the same time."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
                loop.call_soon(_tell, batch, await self._charge_all(batch))
        finally:
            self._worker = None

    async def _charge_all(self, sales: Sequence[Sale]) -> list[LimitState | None]:
        if time.monotonic() < self._closed_until:  # those that had come before the error
            return [None] * len(sales)
        try:
            answers = await self._ask(sales)
            return [_state(answer, sale.grant) for answer, sale in zip(answers, sales, strict=True)]
        except (RedisError, OSError):
            self._closed_until = time.monotonic() + REDIS_PAUSE_S
        except Exception:  # whoever waits is answered by Django
            self._closed_until = time.monotonic() + REDIS_PAUSE_S
            logger.exception("an answer of Redis cannot be read")
        return [None] * len(sales)

    async def _ask(self, sales: Sequence[Sale]) -> list[bytes]:
        if self._client is None:
            self._client = make_async_redis(retries=0)  # a script sent twice would count twice
        packed = [_packed(script_arguments(sale.grant)) for sale in sales]
        keys = [key for its_keys, _ in packed for key in its_keys]
        arguments = (APPEND_WORDS, f"[{','.join([entry for _, entry in packed])}]", *[sale.event for sale in sales])
        call: Any
        try:
            call = self._client.evalsha(BATCH_SHA, len(keys), *keys, *arguments)
            answers = await call
        except NoScriptError:
            call = self._client.eval(BATCH_SCRIPT, len(keys), *keys, *arguments)
            answers = await call
        lines: list[bytes] = answers.split(b"\n")
        return lines


def _state(answer: bytes, grant: KeyGrant) -> LimitState | None:
    try:
        return read_answer([int(number) for number in answer.split()], grant)
    except RateLimited:
        return None


def _tell(sales: Iterable[Sale], states: Iterable[LimitState | None]) -> None:
    for sale, state in zip(sales, states, strict=True):
        try:
            sale.done(state)
        except Exception:
            logger.exception("an answer of the fast lane was not sent")  # the others' answers are
