"""One web process, uvicorn over a listening socket: ``python -m apps.core.web_worker <descriptor>``."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading

import uvicorn

from apps.core.imports import import_rest_of_web, import_web

BACKLOG = 2048
KEEP_ALIVE_S = 75  # callers that ask every half minute keep their connection
STOP_GRACE_S = 5  # open streams are cut after this
WEBSOCKET_MAX_BYTES = 64 * 1024


def serve(listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is open, within STOP_GRACE_S."""
    config = uvicorn.Config(
        "ytserver.asgi:application",
        loop="uvloop",
        http="apps.core.web_protocol:BoundedHttpProtocol",  # by name: nothing is imported before import_web
        lifespan="on",
        log_config=None,  # apps.core.logs has set it up
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        ws_max_size=WEBSOCKET_MAX_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_GRACE_S,
    )
    _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Once requests are answered, import what only some of them need."""
        await super().startup(sockets)
        threading.Thread(target=import_rest_of_web, name="imports", daemon=True).start()


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")
    import_web()
    gc.collect()
    gc.freeze()  # what is there by now stays: nobody need look through it again and again
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
