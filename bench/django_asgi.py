"""The reference for ``bench.pool``: the whole of Django through its own ASGI handler, under the same server.

``python -m bench.django_asgi <listening descriptor>``.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from django.core.asgi import get_asgi_application

from apps.core.web_protocol import BoundedHttpProtocol


def main() -> None:
    config = uvicorn.Config(
        get_asgi_application(), loop="uvloop", http=BoundedHttpProtocol, lifespan="off", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, backlog=4096, timeout_keep_alive=30,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
