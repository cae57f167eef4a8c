"""The routes of the entrance: streams and websockets beside Django, everything else through the bridge into it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule
from redis import RedisError

from apps.analytics.recorder import EventRecorder
from apps.core.answer_headers import AnswerHeaders
from apps.core.asgi import AsgiApp, Receive, Scope, Send, send_answer
from apps.core.bridge import DjangoBridge, WsgiApp
from apps.core.machines import forget_machine, keep_reporting
from apps.core.proxies import see_through_proxies
from apps.core.wake import wake_hub
from apps.downloads.dialects.handover import hand_over
from apps.downloads.stream_backend import make_backend
from apps.keys.cors import Cors
from apps.streaming.app import StreamApp
from apps.streaming.hotstore import HotStore
from ytserver.fast_lane import FastLane, StreamLane

ADMIN_THREADS = 4  # more than the API has: its pages compute longer, and stay quick beside it


class _Parts:
    """What belongs to one run of the server, and to its event loop."""

    def __init__(self, django: WsgiApp) -> None:
        self._bridge = DjangoBridge(django, wake_hub)
        self._admin = DjangoBridge(django, wake_hub, threads=ADMIN_THREADS, max_queued=200)
        self._backend = make_backend()
        store = HotStore(settings.ENV.hot_root)
        self._streams = StreamApp(self._backend, store)
        self.recorder = EventRecorder(self._route)
        everything = AnswerHeaders(Cors(self.recorder), hsts_s=settings.SECURE_HSTS_SECONDS)
        self.http: AsgiApp = everything
        self.begin: Callable[[Scope, Callable[[], None]], bool] | None = None
        self.streams: AsgiApp = everything
        self._lane: FastLane | None = None
        self._stream_lane: StreamLane | None = None
        if settings.ENV.fast_lane:
            self.http = self._lane = FastLane(everything, self.recorder)
            self.begin = self._lane.begin
            self.streams = self._stream_lane = StreamLane(
                everything,
                backend=self._backend,
                store=store,
                running=self._streams.running,
                recorder=self.recorder,
                hsts_s=settings.SECURE_HSTS_SECONDS,
            )

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/stream/"):
            await self._streams(scope, receive, send)
        elif path == "/healthz":  # not through the thread pool: a busy server lives
            await send_answer(send, 200, [("Content-Type", "application/json")], b'{"status": true}')
        elif path == "/readyz":
            await self._bridge(_in_our_name(scope), receive, send)
        elif path == "/api/song":  # with download=true it answers with a stream
            await hand_over(self._bridge, self._streams, scope, receive, send)
        elif _is_of_the_admin(path):  # threads of its own: whatever waits in the queue of the API, it stays usable
            await self._admin(scope, receive, send)
        else:
            await self._bridge(scope, receive, send)

    async def aclose(self) -> None:
        if self._lane is not None:
            await self._lane.aclose()
        if self._stream_lane is not None:
            await self._stream_lane.aclose()
        self._bridge.close()
        self._admin.close()
        await self._backend.aclose()
        await self.recorder.close()
        await wake_hub().aclose()


def _in_our_name(scope: Scope) -> Scope:
    """As if asked of this server by its own name: health checks of load balancers send an address, or any name."""
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {**scope, "headers": [*others, (b"host", settings.ENV.own_host.encode())]}


def _is_of_the_admin(path: str) -> bool:
    """A page of the admin, or a file that pages need."""
    return path == "/admin" or path.startswith(("/admin/", settings.STATIC_URL))


class Entrance:
    """Routes by path, and starts and stops what lives as long as the server. Can be started again after it stopped."""

    def __init__(self, django: WsgiApp) -> None:
        self._django = django
        self._parts: _Parts | None = None

    def begin(self, scope: Scope, usual_way: Callable[[], None]) -> bool:
        """``FastLane.begin``, for servers that can do without a task: see ``apps.core.web_protocol``."""
        parts = self._parts
        if parts is None or parts.begin is None:
            return False
        see_through_proxies(scope, settings.ENV.trusted_proxies)
        return parts.begin(scope, usual_way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        parts = self._parts or self._running_parts()
        see_through_proxies(scope, settings.ENV.trusted_proxies)
        if scope["type"] == "websocket":
            await parts.recorder.watch_websocket(websockets(), scope, receive, send)
        elif scope["path"].startswith("/stream/"):
            await parts.streams(scope, receive, send)
        else:
            await parts.http(scope, receive, send)

    def _running_parts(self) -> _Parts:
        if self._parts is None:  # also without a lifespan: the development server knows none
            self._parts = _Parts(self._django)
        return self._parts

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        parts = self._running_parts()
        await wake_hub().start()
        reporter = asyncio.create_task(keep_reporting(), name="machine-reporter")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        reporter.cancel()
        with suppress(RedisError):
            await asyncio.to_thread(forget_machine)
        self._parts = None
        await parts.aclose()
        await send({"type": "lifespan.shutdown.complete"})


@cache
def websockets() -> AsgiApp:
    """The websockets of every app's ``routing`` module; other addresses are refused.

    ``websocket_urlpatterns`` may only be opened by pages of our own (Origin), ``keyed_websocket_urlpatterns`` by any
    client: those do not go by cookies.
    """
    from channels.routing import URLRouter
    from channels.security.websocket import AllowedHostsOriginValidator
    from django.urls import re_path

    patterns: list[Any] = []
    keyed: list[Any] = []
    for config in apps.get_app_configs():
        if config.name.startswith("apps.") and module_has_submodule(config.module, "routing"):
            routing = import_module(f"{config.name}.routing")
            patterns += routing.websocket_urlpatterns
            keyed += getattr(routing, "keyed_websocket_urlpatterns", [])
    nowhere: Any = refuse_websocket
    own_pages = AllowedHostsOriginValidator(URLRouter([*patterns, re_path("", nowhere)]))
    app: AsgiApp = URLRouter([*keyed, re_path("", own_pages)])
    return app


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Close before accepting: the client gets HTTP 403."""
    await receive()
    await send({"type": "websocket.close", "code": 4404})
