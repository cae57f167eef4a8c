"""A load generator, to be run as a process of its own: ``python -m bench.load <JSON>``; prints one JSON object.

Closed loop: each connection asks, waits for the answer, asks again. Plain sockets and uvloop, so that it costs little
beside what it measures; how late it comes itself is told. Loopback only; bounded in connections and time.
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
ANSWER_WITHIN_S = 1.0  # whoever has waited longer when the time is over has got no answer


@dataclass(kw_only=True)
class Plan:
    """What to ask. ``requests``: raw heads that connections take in turn. ``rate_per_s`` 0: as fast as it goes.

    ``joining``: with a rate, each connection is made when its first request is due, as callers do who have something to
    ask. Without it all are made before the first request.
    """

    port: int
    requests: list[str]
    connections: int
    seconds: float
    rate_per_s: float = 0.0
    joining: bool = False
    host: str = "127.0.0.1"


@dataclass
class Outcome:
    """Answers, by status; their times in milliseconds. ``own_late_p99_ms``: how late requests were sent, at a rate."""

    answers: int = 0
    seconds: float = 0.0
    bytes: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    own_late_p99_ms: float = 0.0

    @property
    def bad(self) -> dict[str, int]:
        """What did not end well, by name: errors, and answers other than 200."""
        return {**self.errors, **{f"status {name}": n for name, n in self.statuses.items() if name != "200"}}

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
        self.answers = 0
        self.is_waiting = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.load.connected(self)

    def ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.is_waiting = True
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
            self.is_waiting = False
            self.answers += 1
            self.load.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        how = type(error).__name__ if error else "closed"
        when = "waiting for an answer" if self.is_waiting else "between two requests" if self.answers else "unused"
        self.load.note_error(f"{how} while {when}")


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [text.encode() for text in plan.requests]
        self.outcome = Outcome()
        self.statuses: Counter[bytes] = Counter()
        self.times: list[float] = []
        self.late: list[float] = []
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
            self.late.append(time.perf_counter() - connection.due_at)
            connection.ask()

    def note_error(self, name: str) -> None:
        if not self.stopping:
            self.outcome.errors[name] = self.outcome.errors.get(name, 0) + 1

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        joining: asyncio.Task[None] | None = None
        if self.plan.joining:
            self.started_at = time.perf_counter()
            joining = asyncio.create_task(self._join_in_turn())
        else:
            await self._connect_all()
            self.started_at = time.perf_counter()
            for number, connection in enumerate(self.connections):
                if self.plan.rate_per_s:
                    connection.due_at = self.started_at + number / self.plan.rate_per_s
                    loop.call_later(number / self.plan.rate_per_s, self._ask, connection)
                else:
                    connection.ask()
        await asyncio.sleep(self.plan.seconds)
        self._count_unanswered()
        self.stopping = True
        self.outcome.seconds = time.perf_counter() - self.started_at
        self._sum_up()
        if joining is not None:
            joining.cancel()
        for connection in self.connections:
            connection.transport.abort()
        return self.outcome

    async def _connect_all(self) -> None:
        for first in range(0, self.plan.connections, 200):
            numbers = range(first, min(first + 200, self.plan.connections))
            await asyncio.gather(*(self._connect(number) for number in numbers))

    async def _connect(self, number: int) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self, number), self.plan.host, self.plan.port
        )
        return connection

    async def _join_in_turn(self) -> None:
        async with asyncio.TaskGroup() as joining:
            for number in range(self.plan.connections):
                due_at = self.started_at + number / self.plan.rate_per_s
                await asyncio.sleep(due_at - time.perf_counter())
                joining.create_task(self._join(number, due_at))

    async def _join(self, number: int, due_at: float) -> None:
        self.late.append(time.perf_counter() - due_at)
        try:
            connection = await self._connect(number)
        except OSError as error:
            self.note_error(f"{type(error).__name__} while connecting")
            return
        connection.due_at = due_at
        if not self.stopping:
            connection.ask()

    def _count_unanswered(self) -> None:
        before = time.perf_counter() - ANSWER_WITHIN_S
        waiting = sum(connection.is_waiting and connection.asked_at < before for connection in self.connections)
        if waiting:
            self.outcome.errors["no answer by the end"] = waiting

    def _sum_up(self) -> None:
        times = sorted(self.times)
        if times:
            at = [times[min(len(times) - 1, int(len(times) * share))] * 1000 for share in (0.5, 0.95, 0.99)]
            self.outcome.p50_ms, self.outcome.p95_ms, self.outcome.p99_ms = at
            self.outcome.max_ms = times[-1] * 1000
        late = sorted(self.late)
        if late:
            self.outcome.own_late_p99_ms = late[int(len(late) * 0.99)] * 1000
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
