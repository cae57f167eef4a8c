"""An answer of the lane that is ready but for the till's word, and its headers."""

from __future__ import annotations

from typing import NamedTuple

from apps.analytics.recorder import AnswerKind
from apps.core.asgi import Scope
from apps.core.web_protocol import header_lines
from apps.downloads.ready import Ready
from apps.keys.limits import LimitState
from ytserver.fast_lane.reading import Asked

Header = tuple[bytes, bytes]

OK = 200


def kind_of(ready: Ready, route: str, method: str) -> AnswerKind:
    kind: AnswerKind | None = ready.kinds.get((route, method))
    if kind is None:
        kind = ready.kinds[route, method] = AnswerKind(route=route, method=method, status=OK, facts=ready.facts)
    return kind


_OWN = frozenset({b"content-length", b"x-request-id", b"etag", b"date", b"set-cookie"})
_OWN_IF_READY = frozenset({b"cache-control"})


class Lasting(NamedTuple):
    """The headers that are the same on every answer of a route."""

    pairs: list[Header]
    lines: bytes


def lasting_headers(headers: list[Header]) -> Lasting:
    etagged = any(name == b"etag" for name, _ in headers)
    own = _OWN | _OWN_IF_READY if etagged else _OWN
    lower = [(name.lower(), value) for name, value in headers]
    pairs = [(name, value) for name, value in lower if name not in own and not name.startswith(b"ratelimit-")]
    return Lasting(pairs, header_lines(pairs))


class Place(NamedTuple):
    """Who asks, from where, and what the answer's address and headers are."""

    raw_key: str
    address: str
    request_id: str
    base_url: str
    lasting: Lasting


class Order(NamedTuple):
    """An answer that is ready but for the till's word."""

    scope: Scope
    asked: Asked
    place: Place
    prefix: str
    ready: Ready
    kind: AnswerKind
    body: bytes
    event_id: str
    event: str
    started_at: float


def own_lines(order: Order, limit: LimitState) -> bytes:
    """``limit_headers``, and those of this answer alone, as ``header_lines`` gives them."""
    return (header_lines(order.ready.headers) if order.ready.headers else b"") + (
        b"ratelimit-limit: %d\r\nratelimit-remaining: %d\r\nratelimit-reset: %d\r\nx-request-id: %b\r\n"
        b"content-length: %d\r\n"
        % (limit.limit, limit.remaining, limit.reset_s, order.place.request_id.encode(), len(order.body))
    )


def header_pairs(lines: bytes) -> list[Header]:
    """``header_lines`` taken apart again, for ``send``."""
    pairs = [line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, value in pairs]
