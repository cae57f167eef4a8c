"""What runs the benchmarks: a program that hangs is ended with all that it started, and no table is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.all import run_program
from bench.report import Figure, Report
from bench.tables import put_table

TITLES = ("First", "Second", "Third")
HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""
MEASURES = """
from bench.report import Figure, Report
report = Report("first")
report.add(Figure("answers/s", [1.0, 3.0, 2.0], floor=5))
report.note("a word")
report.show(as_json=True)
"""
LOGS = """
import logging, sys
from pathlib import Path
from bench.instance import Telegram, set_up_django
set_up_django(Path(sys.argv[1]), 1, 1, Telegram(url="http://127.0.0.1:1", tokens=(), channel="", process=None))
logging.getLogger("ytserver.access").info("request")
logging.getLogger("ytserver").error("something broke")
"""


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Programs that are started end by SIGINT, also where the shell that runs the tests has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    for limit_s in (2, 8, 32, 128):  # until it had the time to start its child
        assert run_program([sys.executable, "-c", HANGS, str(written)], limit_s=limit_s) is None
        if written.exists():
            break
    child = int(written.read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_figures_of_a_program_that_finishes() -> None:
    report = run_program([sys.executable, "-c", MEASURES], limit_s=300)

    assert report == Report("first", [Figure("answers/s", [1.0, 3.0, 2.0], floor=5)], ["a word"])


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "pass"])
def test_a_program_that_fails_or_says_nothing_has_no_figures(code: str) -> None:
    assert run_program([sys.executable, "-c", code], limit_s=300) is None


def test_a_table_takes_the_place_of_its_own_and_of_no_other(tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text("before\n<!-- figures of make bench: begin -->\n<!-- figures of make bench: end -->\nafter\n")

    _put(doc, "Third", 3.0, about="an old machine")
    _put(doc, "First", 1.0, about="an old machine")
    _put(doc, "Third", 33.0, about="a new machine")

    assert doc.read_text() == (
        "before\n<!-- figures of make bench: begin -->\n\n### First\n\n"
        "on 1.0 an old machine\n\n| | min / median / max | wanted |\n|---|---|---|\n| speed | 1.00 |  |\n\n"
        "### Third\n\non 33.0 a new machine\n\n| | min / median / max | wanted |\n|---|---|---|\n| speed | 33.0 |  |\n"
        "<!-- figures of make bench: end -->\nafter\n"
    )


def _put(doc: Path, title: str, value: float, *, about: str) -> None:
    report = Report(title.lower(), [Figure("speed", [value])])
    put_table(doc, report, titles=TITLES, title=title, about=about, when=f"on {value}")


def test_a_benchmark_prints_errors_of_the_program_but_not_its_log_of_requests(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LOGS, str(tmp_path)], capture_output=True, text=True, check=True)

    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["something broke"]
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.8, 0.9, 1.0], "at least 0.8: reached"),
        ([0.7, 0.9, 1.0], "at least 0.8: reached, missed in 1 of 3 rounds"),
        ([0.7, 0.7, 1.0], "at least 0.8: MISSED"),
    ],
)
def test_a_verdict_says_what_was_not_so_in_every_round(values: list[float], verdict: str) -> None:
    assert Figure("ratio", values, floor=0.8).verdict == verdict
