"""Programs as forks of one process that has imported everything: they must be like those that start by themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from apps.core import forking, programs
from apps.core.forking import Nursery
from apps.core.supervisor import Program, Supervisor
from tests.waiting import wait_until
from ytserver.env import BASE_DIR

pytestmark = pytest.mark.skipif(not forking.can_fork_programs(), reason="forks of another process need Linux")
START_S = 60


class Place:
    """A supervisor with a nursery that is ready, and programs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.supervisor = Supervisor(self.lines.append)
        nursery = Nursery()
        self.program = programs.nursery_program(nursery, log_dir=folder, mark="mark-of-the-nursery-test")
        self.supervisor.start_nursery(nursery, self.program)
        self.nursery = nursery
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_until(self.supervisor.nursery_is_ready, timeout_s=START_S)

    @property
    def nursery_process(self) -> psutil.Process:
        return psutil.Process(self.supervisor._nursery_child.process.pid)

    def start(self, name: str, how: str, text: str = "") -> Path:
        """Start a program; its log."""
        (self.folder / name).write_text(text)
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        log = self.folder / f"{name}.log"
        self.supervisor.start(
            Program(
                name=name,
                command=[sys.executable, "-m", "tests.core.forked_program", how, str(descriptor)],
                environ=self.program.environ,
                log=log,
                stop_rank=1,
                grace_s=5,
                folder=BASE_DIR,
                pass_fds=(descriptor,),
                forked=True,
            )
        )
        return log

    def look_after(self, until) -> None:
        """As ``run`` does, until something has come about."""

        def looked() -> bool:
            self.supervisor._look_after_children()
            return until()

        wait_until(looked, timeout_s=START_S)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("nursery"))
    with made.supervisor.listening_to_signals():
        yield made
        pids = [child.process.pid for child in made.supervisor._children if child.process]
        made.supervisor.stop()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def said(log: Path) -> list[dict]:
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_for_words(log: Path, count: int = 1) -> dict:
    wait_until(lambda: len(said(log)) >= count, timeout_s=START_S)
    return said(log)[count - 1]


def test_the_nursery_has_one_thread_and_no_connection(place):
    assert place.nursery_process.num_threads() == 1
    assert place.nursery_process.net_connections(kind="inet") == []


def test_a_fork_is_like_a_program_that_started_by_itself(place):
    found = wait_for_words(place.start("like", "stay", text="what was passed on"))
    process = psutil.Process(found["pid"])
    descriptor = int(found["arguments"][1])
    assert found["was_imported"]
    assert found["parent"] == os.getpid()
    assert found["session"] == found["pid"]
    assert found["folder"] == str(BASE_DIR)
    assert found["read"] == "what was passed on"
    assert found["descriptors"] == [0, 1, 2, descriptor]
    assert " ".join(process.cmdline()).strip().endswith(f"-m tests.core.forked_program stay {descriptor}")
    assert process.environ()["YTSERVER_RUN"] == "mark-of-the-nursery-test"


@pytest.mark.parametrize("number", range(3, 9))
def test_descriptors_keep_their_numbers_whichever_are_free_in_the_nursery(place, monkeypatch, number):
    send = socket.send_fds

    def with_that_number(to: socket.socket, texts: list[bytes], descriptors: list[int]) -> int:
        order = json.loads(texts[0])
        order |= {"wanted": [number], "command": [*order["command"][:-1], str(number)]}
        return send(to, [json.dumps(order).encode()], descriptors)

    monkeypatch.setattr(forking.socket, "send_fds", with_that_number)
    log = place.start(f"number-{number}", "stay", text="what was passed on")
    wait_until(lambda: log.exists() and log.read_text(), timeout_s=START_S)
    found = wait_for_words(log)
    assert found["read"] == "what was passed on"
    assert found["descriptors"] == [0, 1, 2, number]


def test_one_that_dies_is_started_again_alone_and_its_exit_is_told(place):
    nursery_pid = place.nursery_process.pid
    log = place.start("dies", "stay")
    first = wait_for_words(log)
    os.kill(first["pid"], signal.SIGKILL)
    place.look_after(lambda: len(said(log)) == 2)
    assert any("dies ended (killed by SIGKILL)" in line for line in place.lines)
    assert said(log)[1]["was_imported"]
    assert place.nursery_process.pid == nursery_pid

    log = place.start("ends", "3")
    place.look_after(lambda: len(said(log)) == 2)
    assert any("ends ended (exit code 3)" in line for line in place.lines)


def test_without_a_nursery_programs_go_on_and_start_by_themselves_until_there_is_one_again(place):
    log = place.start("outlives", "stay")
    first = wait_for_words(log)
    gone = place.nursery_process
    gone.kill()
    wait_until(lambda: gone.status() == psutil.STATUS_ZOMBIE)
    assert psutil.pid_exists(first["pid"])
    by_itself = wait_for_words(place.start("by-itself", "stay"))
    assert not by_itself["was_imported"]
    assert by_itself["parent"] == os.getpid()

    place.look_after(place.supervisor.nursery_is_ready)
    assert wait_for_words(place.start("after", "stay"))["was_imported"]
    assert psutil.Process(first["pid"]).ppid() == os.getpid()


def test_a_fork_that_the_supervisor_no_longer_waits_for_does_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(forking, "ANSWER_TIMEOUT_S", 0)
    log = place.start("late", "stay")
    late = wait_for_words(log)
    assert not late["was_imported"]  # the one that was started instead
    monkeypatch.undo()
    wait_for_words(place.start("next", "stay"))  # by then the nursery has done both
    assert len(said(log)) == 1


def test_dead_orphans_are_let_go_and_our_own_are_left_to_their_owner(place):
    wait_for_words(place.start("own", "3"))
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        if (orphan := os.fork()) != 0:
            os.write(write_end, str(orphan).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = psutil.Process(int(os.read(read_end, 20)))
    os.close(read_end)
    os.close(write_end)
    wait_until(lambda: orphan.status() == psutil.STATUS_ZOMBIE)
    assert orphan.ppid() == os.getpid()
    place.look_after(
        lambda: not psutil.pid_exists(orphan.pid) and any("own ended (exit code 3)" in line for line in place.lines)
    )
