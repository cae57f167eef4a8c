"""Small pieces of ASGI that the entrance is built from: types, the body, whole answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from apps.core.api_errors import raw_error
from apps.core.errors import ApiError, RequestTimeout, TooLarge
from apps.core.logs import shown_path
from apps.core.request_state import REQUEST_ID
from apps.core.trace import note

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("ytserver.access")

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 20.0
LINGER_BYTES = 4 * 1024 * 1024
LINGER_S = 3.0


class ClientLeft(Exception):
    """The client closed the connection: nobody reads an answer any more."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises TooLarge beyond MAX_BODY_BYTES, RequestTimeout for a slow one, ClientLeft."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise TooLarge
    if length is None and header(scope, b"transfer-encoding") is None:  # has none, and nothing need be waited for
        if (await receive())["type"] == "http.disconnect":
            raise ClientLeft
        return b""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestTimeout from None


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of this (lower-case) name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def send_answer(send: Send, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
    """Send a whole answer."""
    await _send_start(send, status, headers)
    await send({"type": "http.response.body", "body": body})


async def _send_start(send: Send, status: int, headers: Iterable[tuple[str, str]]) -> None:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def send_error(scope: Scope, send: Send, error: ApiError) -> None:
    """Send the error JSON."""
    status, headers, body = _raw_error(scope, error)
    await send_answer(send, status, headers.items(), body)


def _raw_error(scope: Scope, error: ApiError) -> tuple[int, dict[str, str], bytes]:
    note(scope, error=error.code)
    details = {
        "method": scope["method"],
        "path": shown_path(scope["path"]),
        "status": error.status,
        "error": error.code,
    }
    logger.info("refused", extra={**details, "request_id": scope[REQUEST_ID]})
    return raw_error(error, request_id=scope[REQUEST_ID])


async def send_error_before_body(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Send the error JSON to a client that is still sending its body, and close the connection.

    Some of the rest is read and thrown away first: a connection closed at once would be reset, and the client would
    never see why.
    """
    status, headers, body = _raw_error(scope, error)
    await _send_start(send, status, [*headers.items(), ("Connection", "close")])
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if header(scope, b"expect") is None:
        await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):  # the end, or the client left
                    return
    except TimeoutError:
        return
