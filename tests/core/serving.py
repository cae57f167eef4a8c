"""A real uvicorn in a thread, for tests over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.waiting import wait_until


@contextmanager
def serving(app: Any, *, ws: Any = "none", lifespan: Any = "on", http: Any = "httptools") -> Iterator[str]:
    """Serve an ASGI application until the block ends; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app, lifespan=lifespan, log_config=None, access_log=False, proxy_headers=False,
        loop="uvloop", http=http, ws=ws, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="test-uvicorn")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive()


def closed_with(websocket: ClientConnection) -> int:
    """Read a websocket to its end; the close code."""
    try:
        while True:
            websocket.recv(timeout=60)
    except ConnectionClosed as end:
        return end.rcvd.code
