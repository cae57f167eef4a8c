"""What every HTTP answer carries, whoever made it: Django, a stream, the fast lane or an error in front of them."""

from __future__ import annotations

from apps.core.asgi import AsgiApp, Message, Receive, Scope, Send

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
)


class AnswerHeaders:
    """ASGI application around another one. Adds ALWAYS, and HSTS over https, where they are not there already."""

    def __init__(self, app: AsgiApp, *, hsts_s: int) -> None:
        self._app = app
        self._hsts = ((b"strict-transport-security", f"max-age={hsts_s}".encode()),) if hsts_s else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = (*ALWAYS, *self._hsts) if scope["scheme"] == "https" else ALWAYS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                headers += [header for header in wanted if header[0] not in there]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers)
