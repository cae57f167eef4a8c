"""A real uvicorn in a thread, for tests over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from apps.core.embedded import free_port
from tests.waiting import wait_until


@contextmanager
def serving(app: Any, *, ws: Any = "none", lifespan: Any = "on", http: Any = "httptools") -> Iterator[str]:
    """Serve an ASGI application until the block ends; gives its address."""
    port = free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, lifespan=lifespan, log_config=None, access_log=False, proxy_headers=False,
        loop="uvloop", http=http, ws=ws, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="test-uvicorn")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        assert not thread.is_alive()
