"""How long the server takes to start, and what it needs while nobody asks.

``python -m bench.start [--rounds 3] [--json]``: ``up`` over an empty folder (MongoDB is made), then over the same
folder again (warm); until the first request that needs MongoDB and Redis was answered. Import: of a web process
that starts by itself, until it listens.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from apps.core.demo import Instance
from bench.options import bench_parser
from bench.report import Figure, Report
from ytserver.env import BASE_DIR, without_settings

IDLE_AFTER_S = 5.0
ANSWER_TIMEOUT_S = 60.0
IMPORT = (
    "import os, time; os.environ['DJANGO_SETTINGS_MODULE'] = 'ytserver.settings'; at = time.perf_counter();"
    "import apps.core.web_worker; from apps.core.imports import import_web; import_web();"
    "print(time.perf_counter() - at, time.process_time())"
)


def main() -> None:
    parser = bench_parser("start", __doc__)
    options = parser.parse_args()
    report = Report("start")
    measure(report, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, rounds: int) -> None:
    compileall.compile_dir(BASE_DIR / "apps", quiet=1)  # as `make setup` does
    compileall.compile_dir(BASE_DIR / "ytserver", quiet=1)
    with tempfile.TemporaryDirectory(prefix="ytserver-bench-") as name:
        folder = Path(name)
        imports, imports_cpu = zip(*[_import_s(folder) for _ in range(rounds + 1)][1:], strict=True)
        instance = Instance({}, folder=folder)
        first: list[float] = []
        warm: list[float] = []
        memory: dict[str, float] = {}
        for number in range(rounds + 1):
            began_at = time.perf_counter()
            try:
                ready = instance.start()
                _answer(ready["url"], began_at)
                (warm if number else first).append(time.perf_counter() - began_at)
                if number == rounds:
                    time.sleep(IDLE_AFTER_S)
                    memory = _memory(ready["pid"])
            finally:
                instance.stop()
    report.add(Figure("web process, import, s", list(imports), ceiling=1.5))
    report.add(Figure("web process, import, s of processor time", list(imports_cpu)))
    report.add(Figure("up over an empty folder, to the first answer, s", first))
    report.add(Figure("up, warm, to the first answer, s", warm, ceiling=8))
    for part, size in sorted(memory.items()):
        report.add(Figure(f"idle memory, {part}, MB", [size / 1e6]))
    report.add(Figure("idle memory in all, MB", [sum(memory.values()) / 1e6]))


def _import_s(folder: Path) -> tuple[float, float]:
    """By the clock, and of processor time with the interpreter's own start."""
    environ = {**without_settings(os.environ), "VAR_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environ, capture_output=True, text=True, check=True)
    by_clock, of_processor = done.stdout.split()
    return float(by_clock), float(of_processor)


def _answer(url: str, began_at: float) -> None:
    while time.perf_counter() - began_at < ANSWER_TIMEOUT_S:
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise SystemExit("no answer")


def _memory(pid: int) -> dict[str, float]:
    """Of each kind of process; what several share is divided among them (PSS), so that the sum is what it all takes."""
    found: dict[str, float] = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            line, size = " ".join(process.cmdline()), process.memory_full_info().pss
        except psutil.Error:
            continue
        found[_part(line)] = found.get(_part(line), 0.0) + size
    return found


def _part(line: str) -> str:
    names = {"web_worker": "web", "mongod": "MongoDB", "redis": "Redis", " worker": "workers", "ytdlp": "yt-dlp"}
    return next((part for word, part in names.items() if word in line), "up and others")


if __name__ == "__main__":
    main()
