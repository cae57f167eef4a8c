"""Every benchmark in turn: ``python -m bench.all [--quick] [--only NAME ...] [--write]``; ``make bench`` is this.

Prints each figure as min / median / max as it comes. ``--write`` puts the figures of each program into
docs/benchmarks.md as soon as it has finished, with machine, versions and date; the others keep the table that they have
there. A program that takes longer than its limit is ended, and named at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from apps.core.supervisor import end_with_us
from bench.report import Figure, Report
from bench.tables import put_table

DOC = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
CLEAN_UP_S = 20.0
PACKAGES = ("uvicorn", "uvloop", "httptools", "django", "djangorestframework", "redis", "pymongo", "mongoengine")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One of them: how long it may take, and its arguments for a whole run and for ``--quick``."""

    title: str
    limit_s: float
    full: str = ""
    quick: str


PROGRAMS = {
    "fast_lane": Program(title="The fast lane", limit_s=130, quick="--seconds 2 --rounds 2"),
    "streams": Program(title="Hot streams", limit_s=100, full="--seconds 2", quick="--seconds 2 --rounds 2"),
    "pool": Program(
        title="Django in its thread pool", limit_s=110, full="--seconds 2", quick="--seconds 2 --rounds 2"
    ),
    "crowd": Program(title="Ten thousand at once", limit_s=260, quick="--clients 1000 --seconds 10"),
    "storm": Program(
        title="A thousand callers, one new video", limit_s=130, quick="--callers 200 --rounds 2"
    ),
    "telegram_storm": Program(
        title="A thousand callers, one file that is only in Telegram",
        limit_s=150,
        full="--rounds 3",
        quick="--callers 100 --rounds 1",
    ),
    "fetch": Program(title="Fetching beside curl", limit_s=90, quick="--size-mib 128 --rounds 2"),
    "start": Program(title="Start and memory", limit_s=110, full="--rounds 2", quick="--rounds 1"),
    "first_byte": Program(title="First byte", limit_s=60, quick="--repeats 50"),
    "telegram_read": Program(
        title="Reading from Telegram", limit_s=60, full="--size-mib 95 --rounds 2", quick="--size-mib 40 --rounds 1"
    ),
    "telegram_upload": Program(
        title="Uploading to Telegram", limit_s=60, full="--size-mib 1000", quick="--size-mib 200"
    ),
    "growth": Program(
        title="Growth", limit_s=330, full="--seconds 2", quick="--assets 50000 --seconds 1 --rounds 2"
    ),
    "rollups": Program(
        title="Analytics from sums", limit_s=170, full="--rounds 5", quick="--events 20000 --videos 5000 --rounds 3"
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and short: to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=list(PROGRAMS), help="these alone")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also of what is started, where a shell had it ignored
    load, began_at = os.getloadavg()[0], time.monotonic()
    sys.stderr.write(f"{about_machine()}; load before: {load:.1f}\n")
    missing = []
    for name in options.only or PROGRAMS:
        program = PROGRAMS[name]
        sys.stderr.write(f"\n== {program.title}\n")
        arguments = (program.quick if options.quick else program.full).split()
        report = run_program([sys.executable, "-m", f"bench.{name}", "--json", *arguments], limit_s=program.limit_s)
        if report is None:
            missing.append(name)
        elif options.write:
            when = (
                f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load before the run {load:.1f}{', --quick' * options.quick}."
            )
            titles = [each.title for each in PROGRAMS.values()]
            put_table(DOC, report, titles=titles, title=program.title, about=_about_run(), when=when)
    sys.stderr.write(f"\n{(time.monotonic() - began_at) / 60:.1f} minutes\n")
    if missing:
        raise SystemExit(f"did not finish: {', '.join(missing)}")


def run_program(command: Sequence[str], *, limit_s: float) -> Report | None:
    """What the program measured. None: it failed, or took longer; nothing that it started runs any more."""
    began_at = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(  # a session of its own: Ctrl-C reaches us, and we end it, once
            end_with_us(command, death_signal=signal.SIGINT), stdout=out, start_new_session=True
        )
        try:
            failed = process.wait(limit_s) != 0
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"did not finish within {limit_s:g} s\n")
            return None
        finally:
            _end(process)
        out.seek(0)
        lines = out.read().splitlines()
    if failed or not lines:
        return None
    said = json.loads(lines[-1])
    sys.stderr.write(f"({time.monotonic() - began_at:.0f} s)\n")
    return Report(said["name"], [Figure(**figure) for figure in said["figures"]], said["notes"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """With everything that it started; it has CLEAN_UP_S to do that itself."""
    family = _family(process)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLEAN_UP_S)
        family |= _family(process)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=CLEAN_UP_S)


def _family(process: subprocess.Popen[bytes]) -> set[psutil.Process]:
    if process.poll() is not None:
        return set()
    try:
        first = psutil.Process(process.pid)
        return {first, *first.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def about_machine() -> str:
    """Processor, cores, memory, system."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}"


def _about_run() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{about_machine()}, Python {platform.python_version()}, {packages}."


if __name__ == "__main__":
    main()
