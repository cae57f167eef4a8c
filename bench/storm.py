"""One new video and very many callers at once: ``python -m bench.storm [--callers 1000] [--rounds 3] [--json]``.

A whole instance with stand-ins. Every caller opens the stream of a video that nobody has; the stand-in counts what it
was asked for. Callers read as fast as they can, in processes of their own, and compare every byte. The server's own
times are those of its events: from when it began on a request to the first bytes that it sent.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apps.core.demo import Instance
from bench.load import get
from bench.options import bench_parser, between
from bench.report import Figure, Report
from tests.standins.demo import StandInWorld

GENERATORS = 2
BEGIN_IN_S = 0.2
SECONDS = 60.0
FILE_BYTES_PER_S = 4_000_000
EVENTS_WITHIN_S = 15.0
EVENTS = """
from apps.analytics.documents import UsageEvent
print(*[event.first_byte_s for event in UsageEvent.objects(video_id={!r}, first_byte_s__ne=None)])
"""


def main() -> None:
    parser = bench_parser("storm", __doc__)
    parser.add_argument("--callers", type=between(int, 10, 5000), default=1000, help="at once (default: 1000)")
    options = parser.parse_args()
    report = Report("storm")
    with tempfile.TemporaryDirectory(prefix="ytserver-bench-") as folder, StandInWorld() as outside:
        instance = Instance(outside.environment, folder=Path(folder))
        try:
            url = instance.start()["url"]
            said = instance.manage("create_key", "--name", "bench", "--limit-per-hour", "1000000", "--json")
            key = json.loads(said)["key"]
            storm = Storm(outside, instance, urlsplit(url).port or 0, key)
            measure(report, storm, callers=options.callers, rounds=options.rounds)
        finally:
            instance.stop()
    report.show(as_json=options.json)


class Storm:
    """Callers, and what they ask."""

    def __init__(self, outside: StandInWorld, instance: Instance, port: int, key: str) -> None:
        self.outside = outside
        self._instance = instance
        self._port = port
        self._key = key

    def call(self, video_id: str, callers: int) -> list[dict[str, Any]]:
        """What each generator's callers got."""
        original = self._instance.var_dir / "original"
        original.write_bytes(self.outside.original(video_id))
        self.outside.slow_down(FILE_BYTES_PER_S)
        request = get(f"/stream/audio/{video_id}", port=self._port, **{"X-API-Key": self._key})
        plan = {"port": self._port, "seconds": SECONDS, "file": str(original)}
        return call_at_once(
            [{**plan, "requests": [request] * len(range(number, callers, GENERATORS))} for number in range(GENERATORS)]
        )

    def servers_own_times_s(self, video_id: str, callers: int) -> list[float]:
        """In order. Events reach MongoDB a moment after the answers."""
        deadline = time.monotonic() + EVENTS_WITHIN_S
        while True:
            said = self._instance.manage("shell", "--verbosity", "0", "--command", EVENTS.format(video_id))
            times = sorted(float(text) for text in said.split())
            if len(times) >= callers or time.monotonic() > deadline:
                return times


def call_at_once(plans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run a generator (``bench.whole_clients``) for each plan, all from one moment on, and what each found."""
    running = []
    for plan in plans:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.whole_clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write(f"{json.dumps(plan)}\n")
        process.stdin.flush()
        running.append(process)
    for process in running:
        process.stdout.readline()  # "ready"
    begin = f"{time.monotonic() + BEGIN_IN_S}\n"  # on one clock
    return [json.loads(said) for said in _tell(running, begin)]


def _tell(running: Sequence[subprocess.Popen[str]], line: str) -> list[str]:
    """Write a line to each, and what they answer until they end."""
    for process in running:
        process.stdin.write(line)
        process.stdin.flush()
    return [process.communicate(timeout=120)[0] for process in running]


def measure(report: Report, storm: Storm, *, callers: int, rounds: int) -> None:
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        video_id = f"largestorm{number}"
        results = storm.call(video_id, callers)
        firsts = sorted(value for result in results for value in result["first_byte_ms"]) or [float("inf")]
        own = storm.servers_own_times_s(video_id, callers) or [float("inf")]
        for name, value in {
            "downloads": float(storm.outside.downloads(video_id)),
            "errors": float(sum(sum(result["errors"].values()) for result in results)),
            "first": firsts[0],
            "last": firsts[-1],
            "ratio": firsts[-1] / firsts[0],
            "own first": own[0] * 1000,
            "own last": own[-1] * 1000,
            "all": max(result["all_s"] for result in results),
        }.items():
            found.setdefault(name, []).append(value)
        for result in results:
            if result["errors"]:
                report.note(f"round {number + 1}: {result['errors']}")
    report.add(Figure(f"{callers} callers: downloads outside", found["downloads"], ceiling=1))
    report.add(Figure(f"{callers} callers: errors and wrong bytes", found["errors"], ceiling=0))
    report.add(Figure("first byte of the first caller, ms", found["first"]))
    report.add(Figure("first byte of the last caller, ms", found["last"]))
    report.add(Figure("last to first", found["ratio"], ceiling=1.5))
    report.add(Figure("the server's own time to the first first byte, ms", found["own first"]))
    report.add(Figure("the server's own time to the last first byte, ms", found["own last"]))
    report.add(Figure("until all callers had all bytes, s", found["all"]))


if __name__ == "__main__":
    main()
