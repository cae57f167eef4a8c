"""Slow stream clients, as a process of its own: ``python -m bench.slow_clients`` reads a plan (JSON), prints a result.

Each client opens a connection, asks for a stream, and takes ``bytes_per_s`` once a second, no faster. A second in which
less than that was there to take is late. Loopback only; bounded in clients and time.
"""

from __future__ import annotations

import heapq
import json
import selectors
import socket
import sys
import time
from typing import Any

RECEIVE_BUFFER_BYTES = 8192  # else the kernel takes in what the client is too slow for
MAX_CLIENTS = 5000
MAX_SECONDS = 180.0


class _Client:
    def __init__(self, request: bytes, start_at: float) -> None:
        self.request = request
        self.start_at = start_at
        self.sock: socket.socket | None = None
        self.head = b""
        self.in_body = False
        self.asked_at = 0.0
        self.first_byte_s: float | None = None
        self.owed = 0
        self.got = 0
        self.error = ""


def main() -> None:
    plan: dict[str, Any] = json.loads(sys.stdin.read())
    requests, seconds = plan["requests"], float(plan["seconds"])
    if not (0 < len(requests) <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise SystemExit("too many clients, or for too long")
    sys.stdout.write(json.dumps(run(plan["port"], requests, plan["ramp_per_s"], seconds, plan["bytes_per_s"])))


def run(port: int, requests: list[str], ramp_per_s: float, seconds: float, bytes_per_s: int) -> dict[str, Any]:
    begin = time.perf_counter()
    clients = [_Client(text.encode(), begin + number / ramp_per_s) for number, text in enumerate(requests)]
    end = begin + len(requests) / ramp_per_s + seconds
    due = [(client.start_at, number) for number, client in enumerate(clients)]
    heapq.heapify(due)
    waiting = selectors.EpollSelector()  # for a first byte
    late = ticks = behind = 0
    while due and (now := time.perf_counter()) < end:
        at, number = due[0]
        for key, _ in waiting.select(timeout=max(0.0, min(at - now, 0.05))):
            _first_byte(key.data, waiting)
        if at > time.perf_counter():
            continue
        heapq.heappop(due)
        client = clients[number]
        if client.sock is None:
            _open(client, port, waiting)
        elif client.in_body:
            behind += time.perf_counter() - at > 0.5  # our own lateness, not the server's
            ticks += 1
            late += _take(client, bytes_per_s)
        if not client.error:
            heapq.heappush(due, (at + 1.0, number))
    firsts = sorted(client.first_byte_s for client in clients if client.first_byte_s is not None)
    errors: dict[str, int] = {}
    for client in clients:
        if client.error or client.first_byte_s is None:
            name = client.error or "no first byte"
            errors[name] = errors.get(name, 0) + 1
        if client.sock is not None:
            client.sock.close()
    return {
        "clients": len(clients),
        "errors": errors,
        "ticks": ticks,
        "late": late,
        "behind": behind,
        "bytes": sum(client.got for client in clients),
        "first_byte_ms": [value * 1000 for value in firsts],
    }


def _open(client: _Client, port: int, waiting: selectors.EpollSelector) -> None:
    client.sock = socket.socket()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    client.asked_at = time.perf_counter()
    try:
        client.sock.settimeout(10)
        client.sock.connect(("127.0.0.1", port))
        client.sock.sendall(client.request)
        client.sock.setblocking(False)
    except OSError as error:
        client.error = type(error).__name__
        return
    waiting.register(client.sock, selectors.EVENT_READ, client)


def _first_byte(client: _Client, waiting: selectors.EpollSelector) -> None:
    if client.sock is None:
        return
    try:
        data = client.sock.recv(2048)
    except OSError as error:
        data, client.error = b"", type(error).__name__
    client.head += data
    head, end, body = client.head.partition(b"\r\n\r\n")
    if not data or (end and head[9:12] not in (b"200", b"206")):
        client.error = client.error or f"status {head[9:12].decode(errors='replace') or 'none'}"
        waiting.unregister(client.sock)
    elif body:
        client.first_byte_s = time.perf_counter() - client.asked_at
        client.in_body = True
        client.got = len(body)
        waiting.unregister(client.sock)


def _take(client: _Client, bytes_per_s: int) -> bool:
    """Take what is due; whether it was not there."""
    client.owed += bytes_per_s
    while client.owed > 0 and client.sock is not None:
        try:
            data = client.sock.recv(client.owed)
        except BlockingIOError:
            break
        except OSError as error:
            client.error = type(error).__name__
            return True
        if not data:
            client.error = "closed"
            return True
        client.owed -= len(data)
        client.got += len(data)
    is_late = client.owed > 0
    client.owed = 0
    return is_late


if __name__ == "__main__":
    main()
