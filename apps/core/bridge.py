"""Django behind ASGI: ordinary sync Django in a bounded thread pool, and requests that wait without holding a thread.

The whole body is read first, and the answer is handed over whole (long ones piece by piece), so that a slow client
never holds a thread. A request that raised ``Suspend`` is put aside on the event loop and run again when its topic is
published. As messages can be lost, one waiting request of each topic looks again at least once a second, and when it
sees a change the others follow.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from a2wsgi.wsgi import build_environ

from apps.core.adaptive_threads import AdaptiveThreads
from apps.core.asgi import (
    ClientLeft,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_answer,
    send_error,
    send_error_before_body,
)
from apps.core.errors import STILL_COMING_RETRY_S, ApiError, Overloaded, UpstreamTimeout
from apps.core.middleware import request_id_from
from apps.core.request_state import BRIDGE, REPLAYED, REQUEST_ID, STARTED_AT
from apps.core.suspend import MAX_WAIT_S, RECHECK_S, SUSPEND_HEADER
from apps.core.wake import WakeHub

THREADS = 2  # that compute; more only contend: with 4 the admin took half as long again and the API answered no more
MOST_THREADS = 32  # while they wait for MongoDB or Redis
PIECE_BYTES = 64 * 1024  # of a long answer; a few of them are kept for each client that reads slowly
RECHECKS_PER_S = 200  # with very many waiting requests each one looks again less often
WAKES_PER_S = 500
OVERLOADED_RETRY_S = 1.0

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass
class _Answer:
    """A WSGI answer: its first piece, and what brings the rest (None: that was all)."""

    status: int = 500
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    rest: Iterator[bytes] | None = None
    close: Callable[[], None] = lambda: None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class _Exchange:
    """One request, whatever number of times it is run."""

    scope: Scope
    body: bytes
    kept: dict[str, Any]  # environ entries that stay from run to run
    ran_at: float = 0.0


@dataclass
class _Topic:
    """What waiting requests share: how many they are, and when one of them was last run."""

    waiting: int = 0
    ran_at: float = 0.0


class DjangoBridge:
    """The ASGI application around a WSGI one. ``threads`` requests run at once, up to ``most_threads`` while they only
    wait for something. With those that queue, new ones are ``threads + max_queued`` at most. Woken requests queue in a
    line of their own, ``max_suspended`` at most.
    """

    def __init__(
        self,
        app: WsgiApp,
        hub: Callable[[], WakeHub],
        *,
        threads: int = THREADS,
        most_threads: int = MOST_THREADS,
        max_queued: int = 2000,
        max_suspended: int = 20_000,
    ) -> None:
        self.app = app
        self._hub = hub
        self._threads = AdaptiveThreads(least=threads, most=max(threads, most_threads), name="django")
        self._max_running = threads + max_queued
        self._max_suspended = max_suspended
        self._running = 0
        self._suspended = 0
        self._topics: dict[str, _Topic] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[REQUEST_ID] = request_id_from(header(scope, b"x-request-id"))
        started_at = time.monotonic()
        if self._running >= self._max_running:
            error = Overloaded(retry_after_s=OVERLOADED_RETRY_S)
            await send_error_before_body(scope, receive, send, error)
            return
        try:
            body = await read_body(scope, receive)
        except ClientLeft:
            return
        except ApiError as error:
            await send_error_before_body(scope, receive, send, error)
            return
        kept = {STARTED_AT: started_at, REQUEST_ID: scope[REQUEST_ID]}
        await self._serve(_Exchange(scope, body, kept), receive, send)

    def close(self) -> None:
        """Let the running requests finish; what still waits in the queue is dropped."""
        self._threads.close()

    async def _serve(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        answer = await self._run(exchange)
        if answer.rest is None and answer.header(SUSPEND_HEADER) is None:
            await send_answer(send, answer.status, answer.headers, answer.body)
            return
        client_left = asyncio.create_task(_until_client_left(receive))
        try:
            if answer.header(SUSPEND_HEADER) is not None:
                answer = await self._wait_for_answer(exchange, answer, client_left)
            await self._send(answer, send, client_left)
        except ClientLeft:
            return
        except ApiError as error:
            await send_error(exchange.scope, send, error)
        finally:
            client_left.cancel()
            with suppress(asyncio.CancelledError):
                await client_left

    async def _run(self, exchange: _Exchange) -> _Answer:
        self._running += 1
        try:
            return await self._threads.run(self._run_wsgi, exchange)
        finally:
            self._running -= 1

    def _run_wsgi(self, exchange: _Exchange) -> _Answer:
        exchange.ran_at = time.monotonic()
        environ = make_environ(exchange.scope, exchange.body)
        environ |= exchange.kept
        environ[BRIDGE] = True
        answer = _Answer()

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[..., None]:
            answer.status, answer.headers = int(status[:3]), headers
            return _no_write

        iterable = self.app(environ, start_response)
        answer.close = getattr(iterable, "close", answer.close)
        chunks = iter(iterable)
        answer.body, ended = _collect(chunks)
        if ended:
            answer.close()
        else:
            answer.rest = chunks
        exchange.kept |= {name: environ[name] for name in REPLAYED if name in environ}
        return answer

    async def _send(self, answer: _Answer, send: Send, client_left: asyncio.Task[None]) -> None:
        if answer.rest is None:
            await send_answer(send, answer.status, answer.headers, answer.body)
            return
        try:
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            piece, ended, answer.body = answer.body, False, b""
            while True:
                await send({"type": "http.response.body", "body": piece, "more_body": not ended})
                if ended or client_left.done():
                    return
                piece, ended = await self._threads.run(_collect, answer.rest)
        finally:
            await self._threads.run(answer.close)

    async def _wait_for_answer(self, exchange: _Exchange, answer: _Answer, client_left: asyncio.Task[None]) -> _Answer:
        """Run the request again until it has an answer. Raises ClientLeft, Overloaded, UpstreamTimeout."""
        if self._suspended >= self._max_suspended:
            raise _with_limit_headers(Overloaded(retry_after_s=OVERLOADED_RETRY_S), answer)
        self._suspended += 1
        deadline = exchange.kept[STARTED_AT] + MAX_WAIT_S
        try:
            while (topic := answer.header(SUSPEND_HEADER)) is not None:
                if time.monotonic() > deadline:
                    raise _with_limit_headers(UpstreamTimeout(retry_after_s=STILL_COMING_RETRY_S), answer)
                await self._until_worth_running(exchange, topic, client_left)
                answer = await self._threads.run(self._run_wsgi, exchange, again=True)
                if answer.header(SUSPEND_HEADER) != topic and answer.status != UpstreamTimeout.status:
                    self._hub().wake(topic)  # the others may not have heard; a time-out is this request's own
        finally:
            self._suspended -= 1
        return answer

    async def _until_worth_running(self, exchange: _Exchange, name: str, client_left: asyncio.Task[None]) -> None:
        topic = self._topics.setdefault(name, _Topic(ran_at=exchange.ran_at))
        topic.waiting += 1
        try:
            while not await self._is_worth_running(exchange, name, topic, client_left):
                pass
            topic.ran_at = time.monotonic()
        finally:
            topic.waiting -= 1
            if not topic.waiting:
                del self._topics[name]

    async def _is_worth_running(
        self, exchange: _Exchange, name: str, topic: _Topic, client_left: asyncio.Task[None]
    ) -> bool:
        """Wait for the topic or a moment; then whether this request should run. Raises ClientLeft."""
        timer_s = max(RECHECK_S, self._suspended / WAKES_PER_S)
        woken = asyncio.create_task(self._hub().wait(name, timeout_s=timer_s, since=exchange.ran_at))
        try:
            await asyncio.wait((woken, client_left), return_when=asyncio.FIRST_COMPLETED)
            if client_left.done():
                raise ClientLeft
        finally:
            woken.cancel()
        now = time.monotonic()
        if woken.result():
            pause_s = exchange.ran_at + self._suspended / WAKES_PER_S - now
            if pause_s > 0:  # a topic published often must not make everybody run all the time
                await asyncio.wait((client_left,), timeout=pause_s)
            return True
        own_turn = now - exchange.ran_at >= max(RECHECK_S, self._suspended / RECHECKS_PER_S)
        return own_turn or now - topic.ran_at >= RECHECK_S


def _with_limit_headers(error: ApiError, answer: _Answer) -> ApiError:
    error.headers = {name: value for name, value in answer.headers if name.lower().startswith("ratelimit-")}
    return error


def make_environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """The WSGI environ of a request whose body has been read.

    Headers with an underscore are left out: in an environ they would look like the ones with a hyphen.
    """
    safe: Any = {
        **scope,
        "query_string": quote(scope["query_string"], safe=_VISIBLE).encode(),
        "headers": [(name, value) for name, value in scope["headers"] if b"_" not in name],
    }
    environ: dict[str, Any] = dict(build_environ(safe, io.BytesIO(body)))  # type: ignore[arg-type]
    environ["asgi.scope"] = scope
    environ["wsgi.errors"] = sys.stderr
    environ["CONTENT_LENGTH"] = str(len(body))  # a chunked body has none of its own
    return environ


_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))


def _collect(chunks: Iterator[bytes]) -> tuple[bytes, bool]:
    """The next PIECE_BYTES or a little more, and whether that was the end."""
    parts: list[bytes] = []
    size_bytes = 0
    for chunk in chunks:
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= PIECE_BYTES:
            return b"".join(parts), False
    return b"".join(parts), True


def _no_write(_data: bytes) -> None:
    raise RuntimeError("Django never uses WSGI's write()")


async def _until_client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
