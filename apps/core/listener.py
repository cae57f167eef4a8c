"""The listening socket that all web processes share."""

from __future__ import annotations

import socket

SEND_BUFFER_BYTES = 64 * 1024  # what the kernel keeps for each slow reader; accepted sockets inherit it
# Not less: at 32 KiB a packet of the loopback interface does not fit, every one waits for a delayed acknowledgement,
# and a local proxy or player gets 2 MB/s (measured; 400 MB/s at 64 KiB).
TAKES_NOTHING_MAX_MS = 20 * 60 * 1000  # a client that is gone, or reads nothing: the kernel drops the connection


def bind_listener(host: str, port: int) -> socket.socket:
    """Take the port without listening yet. Raises OSError when it is taken or not ours."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TAKES_NOTHING_MAX_MS)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
