"""Counting the lane's requests and recording their events: one script call for all that came in at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from apps.analytics.events import APPEND_WORDS
from apps.core.errors import RateLimited
from apps.core.redis import ANSWER_TIMEOUT_S, make_async_redis
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, read_answer, script_arguments
from apps.keys.windows import SCRIPT, Arguments

logger = logging.getLogger(__name__)

MAX_BATCH = 100  # a script keeps Redis to itself: about 3 ms
MAX_ON_WAY = 4  # batches that Redis has, or whose answers are on their way; the next one fills meanwhile
MAX_WAITING = 10_000
EARLY_BATCH = 12  # so many leave at once, while others of the same turn of the event loop are still being read
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


Sale = tuple[KeyGrant, str, Callable[[LimitState | None], None]]
"""A request to count, the event to append when it is let through, and who is told how it ended, once."""


class Till:
    """Belongs to one event loop. After an error Redis is left alone for REDIS_PAUSE_S: the lane is closed meanwhile.

    It has a connection of its own, on which batches follow each other without waiting for answers: those that came in
    one turn of the event loop leave at its end, or as soon as there are EARLY_BATCH of them. Redis answers in the order
    in which it was asked.
    """

    def __init__(self) -> None:
        self._waiting: deque[Sale] = deque()
        self._unknown: deque[list[Sale]] = deque()  # batches that came to a Redis which did not know the script
        self._on_way: deque[list[Sale]] = deque()
        self._work = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout  # of the present talk
        self._line: AbstractConnection | None = None  # while batches may be written to it
        self._sending: _Begun | None = None  # a batch that the line could not take at once, or that failed
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        return len(self._waiting) < MAX_WAITING and time.monotonic() >= self._closed_until

    def charge(self, grant: KeyGrant, event: str, done: Callable[[LimitState | None], None]) -> None:
        """Count one request and append its event, both or neither. Returns at once; ``done`` is called when it is known
        how it went: the state, or None when the limits refuse, or Redis is away.

        When Redis does not answer, it may all the same have counted and appended: the event's id tells it apart.
        """
        self._waiting.append((grant, event, done))
        if len(self._waiting) >= EARLY_BATCH and (line := self._free_line()) is not None:
            self._begin_batch(line)
        else:
            self._work.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="till")

    async def aclose(self) -> None:
        """Nobody who still waits is told anything: the server has cut their connections."""
        for waiting in (self._waiting, self._unknown, self._on_way):
            waiting.clear()
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        """Until Redis is lost. Who waits then is told so."""
        try:
            if time.monotonic() >= self._closed_until:  # else they had come before the error
                await self._talk()
        except* (RedisError, OSError):
            pass
        except* Exception:
            logger.exception("the till stopped")
        finally:
            self._running = None
            if self._waiting or self._unknown or self._on_way:  # a connection that nobody needs may go
                on_way, self._on_way = self._on_way, deque()
                self._refuse(*on_way)

    async def _talk(self) -> None:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S) as self._patience,
            _connection() as connection,
            asyncio.TaskGroup() as both,
        ):
            self._line, self._sending = connection, None
            both.create_task(self._send())
            both.create_task(self._receive(connection))

    async def _send(self) -> None:
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                if self._sending is not None:
                    await self._sending
                    self._sending = None
                while self._has_batch and (line := self._free_line()) is not None:
                    self._begin_batch(line)
        finally:
            if self._sending is not None:
                self._sending.close()

    @property
    def _has_batch(self) -> bool:
        return bool(self._waiting or self._unknown)

    def _free_line(self) -> AbstractConnection | None:
        """The connection, when a batch may be written to it now: it is there, not full, and not being given up."""
        line = self._line
        if line is None or self._sending is not None or len(self._on_way) >= MAX_ON_WAY or self._patience.expired():
            return None
        return line if line.is_connected else None  # else the library would make another connection

    def _begin_batch(self, line: AbstractConnection) -> None:
        """Raises nothing: ``_send`` sees to what is left to do, and to errors."""
        sending = _Begun(self._send_batch(line))
        if not sending.is_done:
            self._sending = sending
            self._work.set()

    async def _send_batch(self, line: AbstractConnection) -> None:
        if not self._on_way:
            self._expect_an_answer()
        if self._unknown:
            script, batch = ("EVAL", BATCH_SCRIPT), self._unknown.popleft()
        else:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            script = ("EVALSHA", BATCH_SHA)
        self._on_way.append(batch)
        await line.send_packed_command(_command(script, batch), check_health=False)

    async def _receive(self, connection: AbstractConnection) -> None:
        """Raises Redis's first error once nothing is on its way any more: it may have become a replica, and the next
        connection lead to another one."""
        error: ResponseError | None = None
        while error is None or self._on_way:
            try:
                answer = await connection.read_response(timeout=math.inf)  # ``_patience`` is ours
            except NoScriptError:  # a Redis that was started since
                self._unknown.append(self._on_way.popleft())
            except ResponseError as first:
                error = error or first
                self._refuse(self._on_way.popleft())
            else:
                self._tell(answer)
            self._expect_an_answer()
            if self._has_batch:
                self._work.set()
        self._line = None  # nobody would read the answers
        raise error

    def _expect_an_answer(self) -> None:
        if not self._patience.expired():
            is_any = self._on_way or self._has_batch
            self._patience.reschedule(asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S if is_any else None)

    def _tell(self, answer: bytes) -> None:
        """What Redis said about the batch that it was asked about first."""
        batch = self._on_way.popleft()
        try:
            states = [_state(line, sale[0]) for line, sale in zip(answer.split(b"\n"), batch, strict=True)]
        except Exception:  # whoever waits is answered by Django
            logger.exception("an answer of Redis cannot be read")
            self._refuse(batch)
        else:
            _tell(batch, states)

    def _refuse(self, *batches: Sequence[Sale]) -> None:
        """Leave Redis alone for a while. Django answers these, and those that have not left yet."""
        self._closed_until = time.monotonic() + REDIS_PAUSE_S
        refused = [sale for batch in (*batches, *self._unknown, self._waiting) for sale in batch]
        self._unknown.clear()
        self._waiting.clear()
        _tell(refused, [None] * len(refused))


class _Begun:
    """Work that has run up to where it first has to wait, or to its end, without a turn of the event loop. Whoever
    awaits it, once, takes it to its end and gets its error. (Python 3.12 has eager tasks for that.)"""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._waits_for: Any = None
        self._error: Exception | None = None
        self.is_done = False
        try:
            self._waits_for = work.send(None)
        except StopIteration:
            self.is_done = True
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        if self._error is not None:
            raise self._error
        yield self._waits_for
        yield from self._work.__await__()

    def close(self) -> None:
        """Nobody will await it: it ends where it is."""
        self._work.close()


@asynccontextmanager
async def _connection() -> AsyncIterator[AbstractConnection]:
    """A connection to Redis for one user, who says how long to wait for answers. Raises RedisError, OSError."""
    async with make_async_redis(retries=0, answer_timeout_s=None) as client:  # a script sent twice would count twice
        connection: AbstractConnection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            yield connection
        finally:
            await connection.disconnect(nowait=True)
            await client.connection_pool.release(connection)


def _command(script: tuple[str, str], batch: Sequence[Sale]) -> bytes:
    packed = [_packed(script_arguments(sale[0])) for sale in batch]
    keys = [key for its_keys, _ in packed for key in its_keys]
    requests = f"[{','.join([entry for _, entry in packed])}]"
    words: Any = (*script, len(keys), *keys, APPEND_WORDS, requests, *[sale[1] for sale in batch])
    packed_command: bytes = hiredis.pack_command(words)
    return packed_command


def _state(answer: bytes, grant: KeyGrant) -> LimitState | None:
    try:
        return read_answer(list(map(int, answer.split())), grant)
    except RateLimited:
        return None


def _tell(batch: Sequence[Sale], states: Sequence[LimitState | None]) -> None:
    for (_, _, done), state in zip(batch, states, strict=True):
        try:
            done(state)
        except Exception:  # the others' answers are to be sent all the same
            logger.exception("an answer of the fast lane was not sent")
