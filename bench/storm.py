"""One new video and very many callers at once: ``python -m bench.storm [--callers 1000] [--rounds 3] [--json]``.

A whole instance with stand-ins. Every caller opens the stream of a video that nobody has; the stand-in counts what it
was asked for. Callers read as fast as they can, in processes of their own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apps.core.demo import Instance
from bench.load import get
from bench.options import bench_parser, between
from bench.report import Figure, Report
from tests.standins.demo import StandInWorld

GENERATORS = 2
SECONDS = 60.0
FILE_BYTES_PER_S = 4_000_000


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
            measure(report, outside, urlsplit(url).port or 0, key, callers=options.callers, rounds=options.rounds)
        finally:
            instance.stop()
    report.show(as_json=options.json)


def measure(report: Report, outside: StandInWorld, port: int, key: str, *, callers: int, rounds: int) -> None:
    first, last, ratios, downloads, errors = [], [], [], [], []
    for number in range(rounds):
        video_id = f"largestorm{number}"
        sha256 = hashlib.sha256(outside.original(video_id)).hexdigest()
        outside.slow_down(FILE_BYTES_PER_S)
        requests = [get(f"/stream/audio/{video_id}", port=port, **{"X-API-Key": key})] * callers
        results = _call_all(port, requests, sha256)
        firsts = sorted(value for result in results for value in result["first_byte_ms"])
        first.append(firsts[0] if firsts else float("inf"))
        last.append(firsts[-1] if firsts else float("inf"))
        ratios.append(last[-1] / first[-1])
        downloads.append(float(outside.downloads(video_id)))
        errors.append(float(sum(sum(result["errors"].values()) for result in results)))
        for result in results:
            if result["errors"]:
                report.note(f"round {number + 1}: {result['errors']}")
    report.add(Figure(f"{callers} callers: downloads outside", downloads, ceiling=1))
    report.add(Figure(f"{callers} callers: errors and wrong bytes", errors, ceiling=0))
    report.add(Figure("first byte of the first caller, ms", first))
    report.add(Figure("first byte of the last caller, ms", last))
    report.add(Figure("last to first", ratios, ceiling=1.5))


def _call_all(port: int, requests: list[str], sha256: str) -> list[dict[str, Any]]:
    running = []
    for number in range(GENERATORS):
        plan = {
            "port": port,
            "requests": requests[number::GENERATORS],
            "seconds": SECONDS,
            "sha256": sha256,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.whole_clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append((process, json.dumps(plan)))
    for process, plan in running:
        if process.stdin is not None:
            process.stdin.write(plan)
            process.stdin.close()
            process.stdin = None
    return [json.loads(process.communicate(timeout=120)[0]) for process, _ in running]


if __name__ == "__main__":
    main()
