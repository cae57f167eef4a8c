"""Every benchmark in turn: ``python -m bench.all [--quick] [--only NAME ...] [--write]``; ``make bench`` is this.

Prints each figure as min / median / max as it comes. ``--write`` puts them into docs/benchmarks.md, with machine,
versions and date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.report import Figure, Report

DOC = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures of make bench: begin -->", "<!-- figures of make bench: end -->"
TIMEOUT_S = 1200
PROGRAMS = {
    "fast_lane": "The fast lane",
    "streams": "Hot streams",
    "pool": "Django in its thread pool",
    "crowd": "Ten thousand at once",
    "storm": "A thousand callers, one new video",
    "fetch": "Fetching beside curl",
    "start": "Start and memory",
    "growth": "Growth",
    "rollups": "Analytics from sums",
}
QUICK = {
    "fast_lane": ["--seconds", "2", "--rounds", "2"],
    "streams": ["--seconds", "2", "--rounds", "2"],
    "pool": ["--seconds", "2", "--rounds", "2"],
    "crowd": ["--clients", "1000", "--seconds", "10"],
    "storm": ["--callers", "200", "--rounds", "2"],
    "fetch": ["--size-mib", "128", "--rounds", "2"],
    "start": ["--rounds", "1"],
    "growth": ["--assets", "50000", "--seconds", "1", "--rounds", "2"],
    "rollups": ["--events", "20000", "--videos", "5000", "--rounds", "3"],
}
TEXT_PROGRAMS = {
    "first_byte": [],
    "telegram_read": [],
    "telegram_upload": [],
}
"""Those that print their own tables."""
PACKAGES = ("uvicorn", "uvloop", "httptools", "django", "djangorestframework", "redis", "pymongo", "mongoengine")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=[*PROGRAMS, *TEXT_PROGRAMS], help="these alone")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    wanted = options.only or [*PROGRAMS, *TEXT_PROGRAMS]
    before = os.getloadavg()[0]
    sys.stderr.write(f"{about_machine()}; load before: {before:.1f}\n")
    reports, failed = [], []
    for name in wanted:
        sys.stderr.write(f"\n== {PROGRAMS.get(name, name)}\n")
        if name in TEXT_PROGRAMS:
            if subprocess.run([sys.executable, "-m", f"bench.{name}", *TEXT_PROGRAMS[name]], check=False).returncode:
                failed.append(name)
            continue
        report = _run(name, QUICK[name] if options.quick else [])
        if report is None:
            failed.append(name)
        else:
            reports.append(report)
    if options.write and reports:
        _write(reports, load=before)
    if failed:
        raise SystemExit(f"did not finish: {', '.join(failed)}")


def _run(name: str, arguments: list[str]) -> Report | None:
    command = [sys.executable, "-m", f"bench.{name}", "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        return None
    said = json.loads(done.stdout.splitlines()[-1])
    return Report(said["name"], [Figure(**figure) for figure in said["figures"]], said["notes"])


def about_machine() -> str:
    """Processor, cores, memory, system."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}"


def _write(reports: list[Report], *, load: float) -> None:
    """Replace what lies between BEGIN and END."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    about = (
        f"{when}, {about_machine()}, Python {platform.python_version()}, {packages}. Load when it began: {load:.1f}."
    )
    lines = [BEGIN, about]
    for report in reports:
        lines += ["", f"### {PROGRAMS[report.name]}", "", "| | min / median / max | wanted |", "|---|---|---|"]
        lines += [f"| {figure.name} | {figure.shown} | {figure.verdict} |" for figure in report.figures]
        lines += ["", *report.notes] if report.notes else []
    text = DOC.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOC.write_text(head + "\n".join([*lines, END]) + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
