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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from apps.analytics.recorder import EVENT_ID, EventRecorder
from apps.core.asgi import BODY_TIMEOUT_S, AsgiApp, Message, Receive, Scope, Send
from apps.core.errors import ApiError
from apps.core.gather import Gatherer
from apps.core.outages import outage_of
from apps.core.request_state import STARTED_AT
from apps.core.web_protocol import send_whole
from apps.downloads.ready import Question, Ready, ReadyAnswers, look_up
from apps.downloads.services.key_limits import check_grant
from apps.keys.authentication import authenticate_by_heart, extract_key, is_ageing, prefix_of, read_keys
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, link_binding
from ytserver.fast_lane.access_log import AccessLog
from ytserver.fast_lane.first_answers import FirstAnswers, Route
from ytserver.fast_lane.order import OK, Lasting, Order, Place, header_pairs, kind_of, lasting_headers, own_lines
from ytserver.fast_lane.reading import MAX_BODY_BYTES, Asked, Head, Reader, read_head
from ytserver.fast_lane.tally import Tally
from ytserver.fast_lane.till import Till

Result = TypeVar("Result")

THREADS = 4
MAX_LOOKING = 1000  # looks into MongoDB that wait for a thread; beyond that Django decides what to do
MAX_KEYS = 500  # in one read
MAX_WAITING_FOR_KEYS = 10_000
MAX_MESSAGES = 4  # in which a body may come
METHODS = frozenset({"GET", "POST"})
PASSED = "ytserver.passed_the_lane"  # in the scope: the lane has seen it, and Django decides


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
        self._keys = Gatherer(self._read_keys, max_batch=MAX_KEYS)
        self._waiting_for_keys = 0
        self._renewed_keys: set[str] = set()  # that are being read, and nobody waits for
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fast-lane")
        self._looks: dict[Question, asyncio.Future[Ready | None]] = {}
        self._looking = 0
        self._lasting: dict[Route, Lasting] = {}
        self._firsts = FirstAnswers()

    async def aclose(self) -> None:
        await self._keys.aclose()
        await self._till.aclose()
        await self._tally.aclose()
        self._log.write()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def begin(self, scope: Scope, usual_way: Callable[[], None]) -> bool:
        """Answer a GET that can be answered from memory and by Redis, without a task of its own.

        False: the request has to come through ``__call__``. So does one that the till refuses: ``usual_way`` is called.
        """
        if scope["method"] != "GET" or not self._may_take(scope) or (head := read_head(scope)) is None:
            return False
        started_at = time.monotonic()
        asked = self._reader.read(scope)
        if asked is None or (place := self._place(scope, head, asked)) is None:
            return False
        grant = authenticate_by_heart(place.raw_key, place.address)
        ready = self._answers.get(asked.question)
        if grant is None or ready is None or asked.scope not in grant.scopes or not _may_have(grant, ready):
            return False
        if ready.is_ageing:
            self._look(asked.question)  # nobody waits for it
        if is_ageing(grant.prefix):
            self._renew_key(grant.prefix)
        order = self._order(scope, asked, place, grant, ready, started_at)
        self._till.charge(grant, order.event, partial(self._end, order, usual_way))
        return True

    def _end(self, order: Order, usual_way: Callable[[], None], limit: LimitState | None) -> None:
        if limit is None:
            order.scope[PASSED] = True
            order.scope[STARTED_AT] = order.started_at
            order.scope[EVENT_ID] = order.event_id
            usual_way()
            return
        send_whole(order.scope, OK, order.place.lasting.lines + own_lines(order, limit), order.body)  # or it has gone
        self._count(order)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if PASSED in scope or not self._may_take(scope) or (head := read_head(scope)) is None:
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
        if asked is None:
            scope[STARTED_AT] = started_at
            await self._app(scope, receive, send)
            return
        route = Route(asked.route, scope["scheme"])
        if route not in self._lasting and not await self._is_known(scope, head, asked):
            scope[STARTED_AT] = started_at
            await self._app(scope, receive, send)  # a stranger's turn would be one that nobody learns from
            return
        is_first = await self._firsts.take_turn(route, lambda: route in self._lasting)
        try:
            if not await self._answer(scope, send, head, asked, started_at):
                scope[STARTED_AT] = started_at
                await self._app(scope, receive, self._learning(route, send))
        finally:
            if is_first:
                self._firsts.done(route)

    async def _is_known(self, scope: Scope, head: Head, asked: Asked) -> bool:
        """Whether the request's key may do what it asks."""
        grant = await self._grant(_raw_key(head, asked), _address(scope))
        return grant is not None and asked.scope in grant.scopes

    def _may_take(self, scope: Scope) -> bool:
        return (
            scope["type"] == "http"
            and self._reader.may_read(scope["path"])
            and scope["method"] in METHODS
            and self._till.is_open
        )

    async def _answer(self, scope: Scope, send: Send, head: Head, asked: Asked, started_at: float) -> bool:
        """Whether the request has been answered."""
        place = self._place(scope, head, asked)
        if place is None:
            return False
        grant = await self._grant(place.raw_key, place.address)
        if grant is None or asked.scope not in grant.scopes:
            return False
        ready = self._answers.get(asked.question)
        if ready is None:
            ready = await asyncio.shield(self._look(asked.question))
        elif ready.is_ageing:
            self._look(asked.question)
        if ready is None or not _may_have(grant, ready):
            return False
        order = self._order(scope, asked, place, grant, ready, started_at)
        charged: asyncio.Future[LimitState | None] = asyncio.get_running_loop().create_future()
        self._till.charge(grant, order.event, partial(_resolve, charged))
        limit = await charged
        if limit is None:
            scope[EVENT_ID] = order.event_id
            return False
        self._count(order)
        lines = own_lines(order, limit)
        if not send_whole(scope, OK, place.lasting.lines + lines, order.body):
            headers = place.lasting.pairs + header_pairs(lines)
            await send({"type": "http.response.start", "status": OK, "headers": headers})
            await send({"type": "http.response.body", "body": order.body})
        return True

    def _place(self, scope: Scope, head: Head, asked: Asked) -> Place | None:
        """None: what the lane does not know yet, or must not answer."""
        lasting = self._lasting.get(Route(asked.route, scope["scheme"]))
        base_url = self._reader.base_url(scope, head.host)
        if lasting is None or base_url is None:
            return None
        return Place(_raw_key(head, asked), _address(scope), head.request_id, base_url, lasting)

    def _order(
        self, scope: Scope, asked: Asked, place: Place, grant: KeyGrant, ready: Ready, started_at: float
    ) -> Order:
        """The answer made ready, and its event."""
        prefix = grant.prefix
        body = ready.body(
            base_url=place.base_url,
            key_prefix=prefix,
            response_time_s=time.monotonic() - started_at,
            bound_to=link_binding(grant, place.address) if grant.bind_links else "",
        )
        kind = kind_of(ready, asked.event_route, scope["method"])
        event_id, event = self._recorder.draft(kind, prefix, started_at=started_at, size_bytes=len(body))
        return Order(scope, asked, place, prefix, ready, kind, body, event_id, event, started_at)

    def _count(self, order: Order) -> None:
        """In figures, statistics and the log; the event is in Redis by now."""
        waited_s = time.monotonic() - order.started_at
        place, prefix = order.place, order.prefix
        self._recorder.answered(order.kind, first_byte_s=waited_s, size_bytes=len(order.body))
        self._tally.add(order.ready, prefix, place.address, polled=order.asked.polled)
        self._log.add(order.scope, order.asked, place.request_id, prefix, status=OK, waited_s=waited_s)

    async def _grant(self, raw: str, address: str) -> KeyGrant | None:
        """The caller's grant; None: no good key, or nobody knows just now. Simultaneous requests share one read."""
        grant = authenticate_by_heart(raw, address)
        if grant is not None:
            return grant
        prefix = prefix_of(raw)
        if prefix is None or self._waiting_for_keys >= MAX_WAITING_FOR_KEYS:
            return None
        self._waiting_for_keys += 1
        try:
            await self._keys.submit(prefix)
        except Exception as error:  # an outage is for Django to tell; any other is raised again
            if outage_of(error) is None:
                raise
            return None
        finally:
            self._waiting_for_keys -= 1
        return authenticate_by_heart(raw, address)

    def _renew_key(self, prefix: str) -> None:
        """Read it again; nobody waits for it. What is known of it is good meanwhile, as long as it is young enough."""
        if prefix not in self._renewed_keys:
            self._renewed_keys.add(prefix)
            self._keys.submit(prefix).add_done_callback(partial(self._end_renewal, prefix))

    def _end_renewal(self, prefix: str, read: asyncio.Future[None]) -> None:
        self._renewed_keys.discard(prefix)
        if not read.cancelled():
            read.exception()  # MongoDB is away: whoever needs the key finds out

    async def _read_keys(self, prefixes: Sequence[str]) -> Sequence[None]:
        await asyncio.get_running_loop().run_in_executor(self._threads, read_keys, prefixes)
        return [None] * len(prefixes)

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
        except Exception as error:  # an outage is for Django to tell; any other is raised again
            if outage_of(error) is None:
                raise
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

    def _learning(self, route: Route, send: Send) -> Send:
        """``send``, which keeps Django's headers of a good answer when the lane does not know them yet."""
        if route in self._lasting:
            return send

        async def learn(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == OK:
                self._lasting[route] = lasting_headers(message["headers"])
                self._firsts.done(route)
            await send(message)

        return learn


def _raw_key(head: Head, asked: Asked) -> str:
    return head.key or extract_key({}, asked.keys) or asked.keys.get("api", "").strip()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _may_have(grant: KeyGrant, ready: Ready) -> bool:
    """Whether the key's limits on files let it have this one. Metadata has none."""
    if ready.asset_id is None or (grant.longest_video_s is None and grant.largest_file_bytes is None):
        return True
    try:
        check_grant(grant, duration_s=ready.duration_s, size_bytes=ready.size_bytes)
    except ApiError:
        return False
    return True


def _resolve(charged: asyncio.Future[LimitState | None], limit: LimitState | None) -> None:
    if not charged.done():  # its caller has gone
        charged.set_result(limit)


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
