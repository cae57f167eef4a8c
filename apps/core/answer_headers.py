"""What every HTTP answer carries, whoever made it: Django, a stream, the fast lane or an error in front of them."""

from __future__ import annotations

from collections.abc import Iterable

from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
)


def with_always(headers: Iterable[Header], scheme: str, *, hsts_s: int) -> list[Header]:
    """``headers``, and ALWAYS, and HSTS over https, where they are not among them."""
    hsts = ((b"strict-transport-security", b"max-age=%d" % hsts_s),) if hsts_s and scheme == "https" else ()
    given = list(headers)
    there = {name.lower() for name, _ in given}
    return [*given, *(header for header in (*ALWAYS, *hsts) if header[0] not in there)]


class AnswerHeaders:
    """ASGI application around another one: its answers are sent ``with_always``."""

    def __init__(self, app: AsgiApp, *, hsts_s: int) -> None:
        self._app = app
        self._hsts_s = hsts_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = with_always(message.get("headers", ()), scope["scheme"], hsts_s=self._hsts_s)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers)
