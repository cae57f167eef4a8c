"""A load generator, to be run as a process of its own: ``python -m bench.load <JSON>``; prints one JSON object.

Closed loop: each connection asks, waits for the answer, asks again. Plain sockets and uvloop, so that it costs little
beside what it measures. Loopback only; bounded in connections and time.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

MAX_CONNECTIONS = 12_000
MAX_SECONDS = 120.0
GRACE_S = 10.0


@dataclass(kw_only=True)
class Plan:
    """What to ask. ``requests``: raw heads that connections take in turn. ``rate_per_s`` 0: as fast as it goes."""

    port: int
    requests: list[str]
    connections: int
    seconds: float
    rate_per_s: float = 0.0
    host: str = "127.0.0.1"


@dataclass
class Outcome:
    """Answers, by status; their times in milliseconds."""

    answers: int = 0
    seconds: float = 0.0
    bytes: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def per_s(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers must have a Content-Length."""

    def __init__(self, load: _Load, number: int) -> None:
        self.load = load
        self.number = number
        self.transport: asyncio.Transport
        self.left = -1  # bytes of the body; -1: in the head
        self.buffer = b""
        self.asked_at = 0.0
        self.due_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.load.connected(self)

    def ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.transport.write(self.load.next_request(self.number))

    def data_received(self, data: bytes) -> None:
        self.load.outcome.bytes += len(data)
        if self.left < 0:
            data = self.buffer + data if self.buffer else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = data
                return
            head = data[:end].lower()
            self.buffer = b""
            self.load.statuses[data[9:12]] += 1
            at = head.find(b"content-length: ")
            stop = head.find(b"\r\n", at)
            length = int(head[at + 16 : stop if stop > 0 else None])
            self.left = length - (len(data) - end - 4)
        else:
            self.left -= len(data)
        if self.left <= 0:
            self.left = -1
            self.load.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost(error)


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [text.encode() for text in plan.requests]
        self.outcome = Outcome()
        self.statuses: Counter[bytes] = Counter()
        self.times: list[float] = []
        self.stopping = False
        self.started_at = 0.0
        self.connections: list[_Connection] = []
        self.turn = 0

    def next_request(self, number: int) -> bytes:
        self.turn += 1
        return self.requests[
            (number if len(self.requests) >= self.plan.connections else self.turn) % len(self.requests)
        ]

    def connected(self, connection: _Connection) -> None:
        self.connections.append(connection)

    def answered(self, connection: _Connection) -> None:
        now = time.perf_counter()
        self.outcome.answers += 1
        self.times.append(now - (connection.due_at or connection.asked_at))
        if self.stopping:
            return
        if not self.plan.rate_per_s:
            connection.ask()
            return
        self._ask_when_due(connection)

    def _ask_when_due(self, connection: _Connection) -> None:
        """At a steady rate. An answer that comes late is not waited for: its time counts from when it was due."""
        connection.due_at += self.plan.connections / self.plan.rate_per_s
        wait_s = connection.due_at - time.perf_counter()
        if wait_s <= 0:
            connection.ask()
        else:
            asyncio.get_running_loop().call_later(wait_s, self._ask, connection)

    def _ask(self, connection: _Connection) -> None:
        if not self.stopping and not connection.transport.is_closing():
            connection.ask()

    def lost(self, error: Exception | None) -> None:
        if not self.stopping:
            name = type(error).__name__ if error else "closed"
            self.outcome.errors[name] = self.outcome.errors.get(name, 0) + 1

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        for first in range(0, self.plan.connections, 200):
            numbers = range(first, min(first + 200, self.plan.connections))
            made = (
                loop.create_connection(lambda n=number: _Connection(self, n), self.plan.host, self.plan.port)
                for number in numbers
            )
            await asyncio.gather(*made)
        self.started_at = time.perf_counter()
        for number, connection in enumerate(self.connections):
            if self.plan.rate_per_s:
                connection.due_at = self.started_at + number / self.plan.rate_per_s
                loop.call_later(number / self.plan.rate_per_s, self._ask, connection)
            else:
                connection.ask()
        await asyncio.sleep(self.plan.seconds)
        self.stopping = True
        self.outcome.seconds = time.perf_counter() - self.started_at
        self._sum_up()
        for connection in self.connections:
            connection.transport.abort()
        return self.outcome

    def _sum_up(self) -> None:
        times = sorted(self.times)
        if times:
            at = [times[min(len(times) - 1, int(len(times) * share))] * 1000 for share in (0.5, 0.95, 0.99)]
            self.outcome.p50_ms, self.outcome.p95_ms, self.outcome.p99_ms = at
            self.outcome.max_ms = times[-1] * 1000
        self.outcome.statuses = {status.decode(): count for status, count in self.statuses.items()}


def get(path: str, *, port: int, **headers: str) -> str:
    """A request as it goes over the wire."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


def run_load(plan: Plan) -> Outcome:
    """In a process of its own. Raises RuntimeError when it fails."""
    if not (0 < plan.connections <= MAX_CONNECTIONS and 0 < plan.seconds <= MAX_SECONDS):
        raise ValueError(f"1 to {MAX_CONNECTIONS} connections, at most {MAX_SECONDS} s")
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.seconds + plan.connections / 500 + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return Outcome(**json.loads(done.stdout))


def main() -> None:
    plan = Plan(**json.loads(sys.stdin.read()))
    outcome = uvloop.run(_Load(plan).run())
    sys.stdout.write(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
