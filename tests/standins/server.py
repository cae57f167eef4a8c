"""How every stand-in runs: an aiohttp server in a thread of its own, with its own event loop."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter
from typing import Any, Self

from aiohttp import web

from tests.standins.faults import Faults

START_TIMEOUT_S = 15.0


class StandIn:
    """Base of the stand-ins. ``counts`` holds requests by route (and what else a stand-in counts).

    A subclass gives ``make_app``, or overrides ``serve`` (runs in the loop; returns the port) for something else
    than one HTTP site. Handlers are cancelled when their client leaves.
    """

    def __init__(self) -> None:
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.port = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event | None = None
        self._runners: list[web.AppRunner] = []

    def make_app(self) -> web.Application:
        raise NotImplementedError

    def server_ssl(self) -> ssl.SSLContext | None:
        """The certificate to serve with; None: plain HTTP."""
        return None

    @property
    def scheme(self) -> str:
        return "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self) -> int:
        return await self.serve_app(self.make_app(), ssl_context=self.server_ssl())

    async def serve_app(self, app: web.Application, *, ssl_context: ssl.SSLContext | None = None) -> int:
        """Serve one more site on a free port of this loop; the port."""
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    def start(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise RuntimeError(f"{type(self).__name__} did not start")
        if self._failure is not None:
            raise RuntimeError(f"{type(self).__name__} did not start") from self._failure
        return self

    def stop(self) -> None:
        if self._thread is None or self.loop is None or self._stopping is None:
            return
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(START_TIMEOUT_S)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            self.port = await self.serve()
        except Exception as error:  # noqa: BLE001 - handed to the thread that called start()
            self._failure = error
            return
        finally:
            self._ready.set()
        await self._stopping.wait()
        await self.close()

    async def close(self) -> None:
        """Runs in the loop when the stand-in stops."""
        for runner in self._runners:
            connections = list(runner.server.connections) if runner.server else []
            transports = [connection.transport for connection in connections if connection.transport is not None]
            await runner.cleanup()
            for transport in transports:
                transport.abort()  # one whose client does not read would stay open
        await asyncio.sleep(0.02)  # lets the loop close what was aborted
