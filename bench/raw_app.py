"""The reference: a raw ASGI application under the same server and the same HTTP protocol class.

``python -m bench.raw_app <listening descriptor> <file>``: every answer is the file's bytes, with the headers before the
first blank line in it.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from apps.core.web_protocol import BoundedHttpProtocol


def main() -> None:
    head, _, body = Path(sys.argv[2]).read_bytes().partition(b"\r\n\r\n")
    headers = [(line.partition(b": ")[0], line.partition(b": ")[2]) for line in head.split(b"\r\n") if line]

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(
        app, loop="uvloop", http=BoundedHttpProtocol, lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, backlog=4096, timeout_keep_alive=30,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
