"""Clients that all ask at once and read everything, as a process of its own.

``python -m bench.whole_clients`` reads a plan (a line of JSON), says "ready", reads when to begin (by time.monotonic(),
which is one clock for all processes) and prints a result: times are since then. ``spans`` in the plan: from where to
where each request asks for, when that is not the whole file. Loopback only; bounded in clients and time.

Every byte is compared with the file as it should be, which costs a tenth of hashing it: callers have machines of their
own, these share two cores with the server. And they take turns, a piece at a time. (uvloop reads up to 8 MB from one
connection before it looks at the next one: the last caller's first byte then waits for all that the others got. As long
as one has no first byte the pieces are small for the same reason: 500 times 256 KiB delayed others by 0.1 s here.)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

MAX_CLIENTS = 5000
MAX_SECONDS = 180.0
READ_BYTES = 256 * 1024
FIRST_READ_BYTES = 16 * 1024


class _Turns:
    """What one client reads before it is the next one's turn: little, as long as one has no first byte yet."""

    def __init__(self, clients: int) -> None:
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._without = clients

    def has_begun(self) -> None:
        self._without -= 1

    def buffer(self) -> memoryview:
        """One for all: what was read is looked at before anybody else reads."""
        return self._buffer[:FIRST_READ_BYTES] if self._without else self._buffer


class _Client(asyncio.BufferedProtocol):
    def __init__(
        self, request: bytes, expected: bytes, span: tuple[int, int], started_at: float, turns: _Turns
    ) -> None:
        self.request = request
        self.expected = expected
        self.start, self.stop = span
        self.at = self.start
        self.good_status = b"206" if b"\r\nRange: " in request else b"200"
        self.started_at = started_at
        self.turns = turns
        self.head = b""
        self.first_byte_s: float | None = None
        self.left = -1
        self.error = ""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def get_buffer(self, sizehint: int) -> memoryview:
        self.read_to = self.turns.buffer()
        return self.read_to

    def buffer_updated(self, nbytes: int) -> None:
        data: bytes | memoryview = self.read_to[:nbytes]
        if self.left < 0:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            if head[9:12] != self.good_status:
                self._end(f"status {head[9:12].decode(errors='replace')}")
                return
            at = head.lower().find(b"content-length: ")
            self.left = int(head[at + 16 :].partition(b"\r\n")[0])
        if data and self.first_byte_s is None:
            self.first_byte_s = time.monotonic() - self.started_at
            self.turns.has_begun()
        if not self.expected.startswith(data, self.at):
            self._end("wrong bytes")
            return
        self.at += len(data)
        self.left -= len(data)
        if self.left == 0:
            self._end("" if self.at == self.stop else "wrong bytes")

    def connection_lost(self, error: Exception | None) -> None:
        self._end("cut off")

    def _end(self, error: str) -> None:
        if not self.done.done():
            self.error = error
            self.done.set_result(None)
            self.transport.abort()


async def _run(plan: dict[str, Any], expected: bytes, started_at: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    requests = plan["requests"]
    turns = _Turns(len(requests))
    spans = plan.get("spans") or [(0, len(expected))] * len(requests)
    clients = [
        _Client(text.encode(), expected, tuple(span), started_at, turns)
        for text, span in zip(requests, spans, strict=True)
    ]
    await asyncio.sleep(started_at - time.monotonic())
    await asyncio.gather(*(loop.create_connection(lambda c=client: c, "127.0.0.1", plan["port"]) for client in clients))
    await asyncio.wait([client.done for client in clients], timeout=plan["seconds"])
    errors = Counter(client.error if client.done.done() else "not complete" for client in clients)
    begun = [(client.start, client.first_byte_s * 1000) for client in clients if client.first_byte_s is not None]
    return {
        "errors": {name: count for name, count in errors.items() if name and count},
        "first_byte_ms": [first_ms for _, first_ms in begun],
        "first_byte_from_0_ms": [first_ms for start, first_ms in begun if start == 0],
        "all_s": time.monotonic() - started_at,
    }


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    if not (0 < len(plan["requests"]) <= MAX_CLIENTS and 0 < plan["seconds"] <= MAX_SECONDS):
        raise SystemExit("too many clients, or for too long")
    expected = Path(plan["file"]).read_bytes()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    started_at = float(sys.stdin.readline())
    result = asyncio.run(_run(plan, expected, started_at))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
