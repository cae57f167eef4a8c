"""The routes of the entrance: streams and websockets beside Django, everything else through the bridge into it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from apps.analytics.recorder import EventRecorder
from apps.core.asgi import AsgiApp, Receive, Scope, Send, send_answer
from apps.core.bridge import DjangoBridge, WsgiApp
from apps.core.wake import wake_hub

if TYPE_CHECKING:
    from apps.downloads.stream_backend import MediaStreamBackend


class Entrance:
    """Routes by path, and starts and stops what lives as long as the server."""

    def __init__(self, django: WsgiApp) -> None:
        self._bridge = DjangoBridge(django, wake_hub)
        self._http = EventRecorder(self._route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await websockets()(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/stream/"):
            await streams()(scope, receive, send)
        elif path == "/healthz":  # not through the thread pool: a busy server lives
            await send_answer(send, 200, [("Content-Type", "application/json")], b'{"status": true}')
        else:
            await self._bridge(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await wake_hub().start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if stream_backend.cache_info().currsize:
            await stream_backend().aclose()
        self._bridge.close()
        await self._http.close()
        await wake_hub().aclose()
        await send({"type": "lifespan.shutdown.complete"})


@cache
def stream_backend() -> MediaStreamBackend:
    """What decides about streams, with its threads and its connections to Telegram."""
    from apps.downloads.stream_backend import make_backend

    return make_backend()


@cache
def streams() -> AsgiApp:
    """The stream application."""
    from django.conf import settings

    from apps.streaming.app import StreamApp
    from apps.streaming.hotstore import HotStore

    app: AsgiApp = StreamApp(stream_backend(), HotStore(settings.ENV.hot_root))
    return app


@cache
def websockets() -> AsgiApp:
    """The ``websocket_urlpatterns`` of every app's ``routing`` module; other addresses are refused."""
    from channels.routing import URLRouter
    from channels.security.websocket import AllowedHostsOriginValidator
    from django.urls import re_path

    patterns: list[Any] = []
    for config in apps.get_app_configs():
        if config.name.startswith("apps.") and module_has_submodule(config.module, "routing"):
            patterns += import_module(f"{config.name}.routing").websocket_urlpatterns
    nowhere: Any = refuse_websocket
    app: AsgiApp = AllowedHostsOriginValidator(URLRouter([*patterns, re_path("", nowhere)]))
    return app


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Close before accepting: the client gets HTTP 403."""
    await receive()
    await send({"type": "websocket.close", "code": 4404})
