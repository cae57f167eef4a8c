import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from django.conf import settings

from apps.core import launcher as launcher_module
from apps.core import supervisor as supervisor_module
from apps.core.launcher import Launcher
from apps.core.supervisor import Program, ProgramEnded, StopAsked, Supervisor, describe_exit, end_with_us

SLEEPER = "import time; time.sleep(600)"
STUBBORN = "import signal, sys, time; signal.signal(15, lambda *_: None); print('up', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid,"
    " flush=True); time.sleep(600)"
)


def wait_for(condition, *, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


@pytest.fixture
def program(tmp_path):
    def make(code, *, name="child", **options):
        return Program(
            **{
                "name": name,
                "command": [sys.executable, "-S", "-c", code],
                "environ": dict(os.environ),
                "log": tmp_path / f"{name}.log",
                "folder": tmp_path,
                "stop_rank": 0,
                "grace_s": 60,
                **options,
            }
        )

    return make


@pytest.fixture
def supervised():
    lines = []
    supervisor = Supervisor(lines.append)
    supervisor.lines = lines
    with supervisor.listening_to_signals():
        yield supervisor
        supervisor.stop()


BEFORE = set()


@pytest.fixture(autouse=True)
def _own_children():
    """Forget the test run's servers and what earlier tests keep, such as multiprocessing's resource tracker."""
    BEFORE.clear()
    BEFORE.update(child.pid for child in psutil.Process().children())


def children():
    return [child for child in psutil.Process().children() if child.pid not in BEFORE]


class TestSupervisor:
    def test_starts_a_dead_program_again_with_growing_pauses(self, supervised, program, tmp_path, monkeypatch):
        monkeypatch.setattr(supervisor_module, "FIRST_DELAY_S", 0.02)
        supervised.start(program("import sys; print('turn', flush=True); sys.exit(3)"))
        supervised._children[0].delay_s = 0.02
        log = tmp_path / "child.log"

        def stop_after_three_turns():
            wait_for(lambda: log.exists() and log.read_text().count("turn") >= 3)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop_after_three_turns).start()
        supervised.run()
        assert "child ended (exit code 3); starting it again in 0.02 s" in supervised.lines[0]
        assert "in 0.04 s" in supervised.lines[1]

    def test_what_cannot_be_started_again_now_is_tried_later(self, supervised, program, tmp_path, monkeypatch):
        monkeypatch.setattr(supervisor_module, "FIRST_DELAY_S", 0.02)
        (tmp_path / "folder").mkdir()
        log = tmp_path / "child.log"
        supervised.start(program("print('turn', flush=True)", folder=tmp_path / "folder"))
        supervised._children[0].delay_s = 0.02
        wait_for(lambda: log.read_text().count("turn") == 1)
        (tmp_path / "folder").rmdir()

        def come_back_then_stop():
            wait_for(
                lambda: any("child cannot be started (No such file or directory)" in line for line in supervised.lines)
            )
            (tmp_path / "folder").mkdir()
            wait_for(lambda: log.read_text().count("turn") >= 2)
            os.kill(os.getpid(), signal.SIGTERM)

        ending = threading.Thread(target=come_back_then_stop)
        ending.start()
        supervised.run()
        ending.join()

    def test_stops_lower_ranks_first_and_leaves_nothing(self, supervised, program, tmp_path):
        note = "import signal, sys, time; signal.signal(15, lambda *_: (open('order', 'a').write({!r}), sys.exit(0)));"
        for name, rank in (("c", 2), ("a", 0), ("b", 1)):
            code = note.format(name) + "print('up', flush=True); time.sleep(600)"
            supervised.start(program(code, name=name, stop_rank=rank))
        for name in "abc":
            wait_for(lambda name=name: "up" in (tmp_path / f"{name}.log").read_text())
        supervised.stop()
        assert (tmp_path / "order").read_text() == "abc"
        assert not children()

    def test_kills_what_does_not_listen_after_its_grace(self, supervised, program, tmp_path):
        supervised.start(program(STUBBORN, grace_s=0.2))
        wait_for(lambda: "up" in (tmp_path / "child.log").read_text())
        supervised.stop()
        assert not children()

    def test_a_second_signal_shortens_the_grace(self, supervised, program, tmp_path):
        supervised.start(program(STUBBORN, grace_s=3600))
        wait_for(lambda: "up" in (tmp_path / "child.log").read_text())
        os.kill(os.getpid(), signal.SIGINT)
        supervised.run()
        stopped = threading.Event()

        def keep_asking():
            while not stopped.wait(0.2):
                os.kill(os.getpid(), signal.SIGINT)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            supervised.stop()
        finally:
            stopped.set()
            asking.join()
        assert not children()

    def test_ends_what_a_program_left_behind(self, supervised, program, tmp_path):
        supervised.start(program(PARENT))
        grandchild = int(wait_for(lambda: (tmp_path / "child.log").read_text().strip()))
        supervised.stop()
        wait_for(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie")

    def test_waiting_ends_when_a_program_ends(self, supervised, program):
        supervised.start(program("raise SystemExit(7)", name="MongoDB"))
        with pytest.raises(ProgramEnded, match=r"MongoDB ended \(exit code 7\)"):
            wait_for(supervised.check)

    def test_waiting_ends_when_asked_to_stop(self, supervised):
        supervised.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopAsked):
            wait_for(supervised.check)

    def test_gives_the_signal_handlers_back(self):
        before = signal.getsignal(signal.SIGTERM)
        supervisor = Supervisor(print)
        with supervisor.listening_to_signals():
            assert signal.getsignal(signal.SIGTERM) is not before
        supervisor.stop()
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import subprocess, time; from apps.core.supervisor import end_with_us; import sys;"
        f"p = subprocess.Popen(end_with_us([sys.executable, '-S', '-c', {SLEEPER!r}]), start_new_session=True);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        wait_for(lambda: SLEEPER in child.cmdline())
        parent.kill()
        parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_child_whose_parent_is_gone_already_does_not_start():
    command = end_with_us([sys.executable, "-c", "print('started')"])
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL")])
def test_an_end_is_told_in_words(code, text):
    assert describe_exit(code) == text


class TestCare:
    def test_is_taken_again_and_again_while_everything_runs(self, supervised, program, monkeypatch):
        monkeypatch.setattr(supervisor_module, "CARE_EVERY_S", 0.05)
        cared = []

        def care():
            cared.append(1)
            if len(cared) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        supervised.start(program(SLEEPER))
        supervised.run(care=care)
        assert len(cared) == 3


class TestPreparing:
    @pytest.fixture
    def lines(self):
        return []

    @pytest.fixture
    def launcher(self, lines, monkeypatch):
        monkeypatch.setattr(launcher_module, "STILL_EVERY_S", 0.01)
        made = Launcher(settings.ENV, lines.append)
        with made.supervisor.listening_to_signals():
            yield made
            made.supervisor.stop()

    def test_what_takes_long_is_waited_for_and_told(self, launcher, lines):
        may_end = threading.Event()

        def work():
            assert may_end.wait(60)
            return 7

        threading.Thread(target=lambda: (wait_for(lambda: len(lines) > 1), may_end.set())).start()
        assert launcher._wait_for_result("the database", work) == 7
        assert lines[0].startswith("Still preparing the database, since ")

    def test_what_it_raises_is_raised(self, launcher):
        with pytest.raises(ZeroDivisionError):
            launcher._wait_for_result("the database", lambda: 1 // 0)

    def test_a_signal_to_stop_ends_the_waiting_though_it_goes_on(self, launcher):
        may_end, begun = threading.Event(), threading.Event()

        def work():
            begun.set()
            may_end.wait(60)

        threading.Thread(target=lambda: begun.wait(60) and os.kill(os.getpid(), signal.SIGTERM)).start()
        try:
            with pytest.raises(StopAsked):
                launcher._wait_for_result("the database", work)
        finally:
            may_end.set()

    def test_a_program_that_ends_ends_the_waiting_too(self, launcher, program):
        may_end = threading.Event()
        launcher.supervisor.start(program("import sys; sys.exit(3)", name="MongoDB"))
        try:
            with pytest.raises(ProgramEnded, match="MongoDB ended"):
                launcher._wait_for_result("the database", lambda: may_end.wait(60))
        finally:
            may_end.set()
