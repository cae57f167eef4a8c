"""The listening socket that all web processes share."""

from __future__ import annotations

import socket

SEND_BUFFER_BYTES = 32 * 1024  # what the kernel keeps for each slow reader; accepted sockets inherit it


def bind_listener(host: str, port: int) -> socket.socket:
    """Take the port without listening yet. Raises OSError when it is taken or not ours."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
