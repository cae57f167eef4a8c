"""A stream in place of a redirect: what a view answers is not sent when it names a stream to send instead."""

from __future__ import annotations

from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send

STREAM_HEADER = "X-Ytserver-Stream"
"""Path and query of the stream that is to be sent instead of this answer. Where nobody does that (the development
server) the client follows the redirect that the answer is."""

_RAW_HEADER = STREAM_HEADER.lower().encode()


async def hand_over(app: AsgiApp, streams: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let ``app`` answer, or ``streams`` when that answer has STREAM_HEADER. Bytes never pass through Django."""
    target: list[str] = []

    async def send_unless_stream(message: Message) -> None:
        if message["type"] == "http.response.start":
            target.extend(value.decode() for name, value in message["headers"] if name == _RAW_HEADER)
        if not target:
            await send(message)

    await app(scope, receive, send_unless_stream)
    if target:
        path, _, query = target[0].partition("?")
        await streams({**scope, "path": path, "query_string": query.encode()}, receive, send)
