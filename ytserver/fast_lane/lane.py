"""The fast lane: what is known is answered in front of Django, everything else goes on to it unchanged.

A request is answered here when all of this holds, else Django sees it as it came: it asks for metadata or a file in a
usual way (``reading``); its key is good and may do that; the answer is known (``apps.downloads.ready``); the limits let
it through (``till``, the one Redis call). Who may do what, what is known, what links and bodies look like, are the same
functions that the views use. The lane is the outermost of all, so that its answers pass through nothing else. The
headers that do not change from answer to answer are those of Django's own last one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, TypeVar

from apps.analytics.recorder import EVENT_ID, AnswerKind, EventRecorder
from apps.core.api_errors import SERVICE_DOWN
from apps.core.asgi import BODY_TIMEOUT_S, AsgiApp, Message, Receive, Scope, Send
from apps.core.errors import ApiError
from apps.core.request_state import STARTED_AT
from apps.core.web_protocol import header_lines, send_whole
from apps.downloads.ready import Question, Ready, ReadyAnswers, look_up
from apps.downloads.services.key_limits import check_grant
from apps.keys.authentication import KeyGrant, authenticate, authenticate_by_heart, extract_key
from apps.keys.limits import LimitState, link_binding
from ytserver.fast_lane.access_log import AccessLog
from ytserver.fast_lane.reading import MAX_BODY_BYTES, Asked, Head, Reader, read_head
from ytserver.fast_lane.tally import Tally
from ytserver.fast_lane.till import Till

Result = TypeVar("Result")
Header = tuple[bytes, bytes]

THREADS = 4
MAX_LOOKING = 1000  # looks into MongoDB that wait for a thread; beyond that Django decides what to do
MAX_MESSAGES = 4  # in which a body may come
OK = 200
METHODS = frozenset({"GET", "POST"})


class FastLane:
    """ASGI, in front of ``app`` and all that is around it. Belongs to one event loop; ``aclose`` ends it.

    ``recorder`` keeps the figures of what is answered here: it is somewhere inside ``app``, and sees none of it.
    """

    def __init__(self, app: AsgiApp, recorder: EventRecorder) -> None:
        self._app = app
        self._recorder = recorder
        self._reader = Reader()
        self._answers = ReadyAnswers()
        self._till = Till()
        self._tally = Tally(recorder)
        self._log = AccessLog()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fast-lane")
        self._looks: dict[Question, asyncio.Future[Ready | None]] = {}
        self._looking = 0
        self._headers: dict[tuple[str, str], _Lasting] = {}

    async def aclose(self) -> None:
        await self._till.aclose()
        await self._tally.aclose()
        self._log.write()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or not self._reader.may_read(scope["path"])
            or scope["method"] not in METHODS
            or not self._till.is_open
            or (head := read_head(scope)) is None
        ):
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        body = b""
        if scope["method"] == "POST":
            messages, body = await _read_body(receive)
            receive = _again(messages, receive)
            if not body:
                await self._app(scope, receive, send)
                return
        asked = self._reader.read(scope, head.content_type if body else b"", body)
        if asked is None or not await self._answer(scope, send, head, asked, started_at):
            scope[STARTED_AT] = started_at
            await self._app(scope, receive, self._learning(scope, asked, send))

    async def _answer(self, scope: Scope, send: Send, head: Head, asked: Asked, started_at: float) -> bool:
        """Whether the request has been answered."""
        headers = self._headers.get((asked.route, scope["scheme"]))
        base_url = self._reader.base_url(scope, head.host)
        if headers is None or base_url is None:
            return False
        client = scope.get("client")
        address = client[0] if client else ""
        raw = head.key or extract_key({}, asked.keys) or asked.keys.get("api", "").strip()
        grant = authenticate_by_heart(raw, address) or await self._grant(raw, address)
        if grant is None or asked.scope not in grant.scopes:
            return False
        ready = self._answers.get(asked.question)
        if ready is None:
            ready = await asyncio.shield(self._look(asked.question))
        elif ready.is_ageing:
            self._look(asked.question)  # nobody waits for it
        if ready is None or not _may_have(grant, ready):
            return False
        prefix = grant.prefix
        bound_to = link_binding(grant, address) if grant.bind_links else ""
        waited_s = time.monotonic() - started_at
        body = ready.body(base_url=base_url, key_prefix=prefix, response_time_s=waited_s, bound_to=bound_to)
        kind = _kind(ready, asked.event_route, scope["method"])
        event_id, event = self._recorder.draft(kind, prefix, started_at=started_at, size_bytes=len(body))
        limit = await self._till.charge(grant, event)
        if limit is None:
            scope[EVENT_ID] = event_id
            return False
        waited_s = time.monotonic() - started_at
        self._recorder.answered(kind, first_byte_s=waited_s, size_bytes=len(body))
        self._tally.add(ready, prefix, address, polled=asked.polled)
        own = (*ready.headers, *_own_headers(limit, head.request_id, body))
        if not send_whole(scope, OK, headers.lines + header_lines(own), body):
            await send({"type": "http.response.start", "status": OK, "headers": [*headers.pairs, *own]})
            await send({"type": "http.response.body", "body": body})
        self._log.add(scope, asked, head.request_id, prefix, status=OK, waited_s=waited_s)
        return True

    async def _grant(self, raw: str, address: str) -> KeyGrant | None:
        """The caller's grant; None: no good key, or nobody knows just now."""
        if not raw:
            return None
        try:
            return await self._in_thread(lambda: authenticate(raw, address))
        except (ApiError, *SERVICE_DOWN):
            return None

    def _look(self, question: Question) -> asyncio.Future[Ready | None]:
        """Look it up; simultaneous requests look once."""
        look = self._looks.get(question)
        if look is None:
            look = self._looks[question] = asyncio.ensure_future(self._look_once(question))
            look.add_done_callback(lambda _: self._looks.pop(question, None))
        return look

    async def _look_once(self, question: Question) -> Ready | None:
        try:
            ready = await self._in_thread(lambda: look_up(question))
        except SERVICE_DOWN:
            return None
        if ready is not None:
            self._answers.put(question, ready)
        return ready

    async def _in_thread(self, work: Callable[[], Result]) -> Result | None:
        """None when too much is waiting."""
        if self._looking >= MAX_LOOKING:
            return None
        self._looking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._looking -= 1

    def _learning(self, scope: Scope, asked: Asked | None, send: Send) -> Send:
        """``send``, which keeps Django's headers of a good answer when the lane does not know them yet."""
        if asked is None or (asked.route, scope["scheme"]) in self._headers:
            return send

        async def learn(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == OK:
                self._headers[asked.route, scope["scheme"]] = _lasting(message["headers"])
            await send(message)

        return learn


def _kind(ready: Ready, route: str, method: str) -> AnswerKind:
    kind: AnswerKind | None = ready.kinds.get((route, method))
    if kind is None:
        kind = ready.kinds[route, method] = AnswerKind(route=route, method=method, status=OK, facts=ready.facts)
    return kind


def _may_have(grant: KeyGrant, ready: Ready) -> bool:
    """Whether the key's limits on files let it have this one. Metadata has none."""
    if ready.asset_id is None or (grant.longest_video_s is None and grant.largest_file_bytes is None):
        return True
    try:
        check_grant(grant, duration_s=ready.duration_s, size_bytes=ready.size_bytes)
    except ApiError:
        return False
    return True


_OWN = frozenset({b"content-length", b"x-request-id", b"etag", b"date", b"set-cookie"})
_OWN_IF_READY = frozenset({b"cache-control"})


class _Lasting(NamedTuple):
    """The headers that are the same on every answer of a route."""

    pairs: list[Header]
    lines: bytes


def _lasting(headers: list[Header]) -> _Lasting:
    etagged = any(name == b"etag" for name, _ in headers)
    own = _OWN | _OWN_IF_READY if etagged else _OWN
    lower = [(name.lower(), value) for name, value in headers]
    pairs = [(name, value) for name, value in lower if name not in own and not name.startswith(b"ratelimit-")]
    return _Lasting(pairs, header_lines(pairs))


def _own_headers(limit: LimitState, request_id: str, body: bytes) -> tuple[Header, ...]:
    """``limit_headers``, as bytes, and those of this answer alone."""
    return (
        (b"ratelimit-limit", b"%d" % limit.limit),
        (b"ratelimit-remaining", b"%d" % limit.remaining),
        (b"ratelimit-reset", b"%d" % limit.reset_s),
        (b"x-request-id", request_id.encode()),
        (b"content-length", b"%d" % len(body)),
    )


async def _read_body(receive: Receive) -> tuple[list[Message], bytes]:
    """The messages up to the end of the body, and the body; empty when it is too long for the lane, or breaks off."""
    messages: list[Message] = []
    body = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while len(messages) < MAX_MESSAGES:
                message = await receive()
                messages.append(message)
                body += message.get("body", b"")
                if message["type"] != "http.request" or len(body) > MAX_BODY_BYTES:
                    break
                if not message.get("more_body", False):
                    return messages, body
    return messages, b""


def _again(messages: list[Message], receive: Receive) -> Receive:
    """``receive`` from the start: the messages that have been taken come once more."""
    waiting = deque(messages)

    async def receive_again() -> Message:
        return waiting.popleft() if waiting else await receive()

    return receive_again
