"""Starts programs, starts them again when they die, and stops them in order. Knows nothing about what they do."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from apps.core.forking import ForkedProcess, Nursery, reap_orphans

EXEC_CHILD = Path(__file__).with_name("exec_child.py")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
STEADY_AFTER_S = 30.0  # a program that ran this long starts again without a long wait
CARE_EVERY_S = 10.0
KILL_WAIT_S = 5.0
HURRIED_GRACE_S = 1.0


def end_with_us(command: Sequence[str], *, death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """``command`` for Popen, so that the kernel ends it when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", str(EXEC_CHILD), str(os.getpid()), str(int(death_signal)), *command]


class StopAsked(Exception):
    """Ctrl-C or SIGTERM arrived while something was being waited for."""


class ProgramEnded(Exception):
    """A program ended while others waited for it to be ready."""

    def __init__(self, program: Program, returncode: int) -> None:
        self.program = program
        super().__init__(f"{program.name} ended ({describe_exit(returncode)})")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One child. ``stop_rank``: the lowest are stopped first, equal ones together."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log: Path | None  # None: its output goes where ours goes
    stop_rank: int
    grace_s: float
    folder: Path
    death_signal: signal.Signals = signal.SIGKILL  # what the kernel sends it when we die
    pass_fds: tuple[int, ...] = ()
    forked: bool = False  # where there is a nursery, run it as a fork of that; its command is ``python -m ...`` then


class _Child:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.started_at = 0.0
        self.next_start_at = 0.0
        self.delay_s = FIRST_DELAY_S

    def start(self, nursery: Nursery | None = None) -> None:
        """As a fork of ``nursery``, or by itself without one, or when that does not work."""
        with ExitStack() as stack:
            log = stack.enter_context(self.program.log.open("ab")) if self.program.log else None
            self.started_at = time.monotonic()
            if nursery is not None:
                out, err = (log.fileno(), log.fileno()) if log else (1, 2)
                self.process = nursery.fork(self.program, out=out, err=err)
                if self.process is not None:
                    return
            self.process = subprocess.Popen(
                end_with_us(self.program.command, death_signal=self.program.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.program.environ),
                cwd=self.program.folder,
                start_new_session=True,  # Ctrl-C in the terminal reaches us only; its own children can be found
                pass_fds=self.program.pass_fds,
            )

    def ended(self) -> int | None:
        """The exit code once, when the program has ended since the last call. What it left behind is ended too."""
        if self.process is None or (returncode := self.process.poll()) is None:
            return None
        self.signal_group(signal.SIGKILL)
        self.process = None
        return returncode

    def ask_to_end(self) -> None:
        """SIGTERM to the program alone: what it started itself is its own to end, until it is gone."""
        if self.process is not None:
            self.process.terminate()

    def signal_group(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def plan_restart(self) -> float:
        now = time.monotonic()
        if now - self.started_at > STEADY_AFTER_S:
            self.delay_s = FIRST_DELAY_S
        wait_s = self.delay_s
        self.next_start_at = now + wait_s
        self.delay_s = min(self.delay_s * 2, MAX_DELAY_S)
        return wait_s


class Supervisor:
    """The parent of every program. Use it in the main thread, inside ``listening_to_signals``.

    ``report`` gets one plain line for each thing that an operator should know.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._children: list[_Child] = []
        self._nursery: Nursery | None = None
        self._nursery_child: _Child | None = None
        self._stops_asked = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    @contextmanager
    def listening_to_signals(self) -> Iterator[None]:
        """Signals to stop are noted instead of ending the process; every child's end wakes ``run``."""

        def note_stop(_number: int, _frame: FrameType | None) -> None:
            self._stops_asked += 1

        def ignore(_number: int, _frame: FrameType | None) -> None:
            pass  # set_wakeup_fd needs a Python handler

        before = {number: signal.signal(number, note_stop) for number in STOP_SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, ignore)
        before_fd = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, program: Program) -> None:
        """Start a program now and keep it running from now on."""
        child = _Child(program)
        self._children.append(child)
        child.start(self._usable_nursery(program))

    def start_nursery(self, nursery: Nursery, program: Program) -> None:
        """Start the nursery: programs that are started afterwards, and may, are its forks. ``stop`` closes it."""
        self._nursery = nursery
        self._nursery_child = _Child(program)
        self._children.append(self._nursery_child)
        self._nursery_child.start()

    def nursery_is_ready(self) -> bool:
        """Whether forks can be had now. While not, programs start by themselves."""
        process = self._nursery_child.process if self._nursery_child else None
        return self._nursery is not None and process is not None and self._nursery.is_ready(process.pid)

    def _usable_nursery(self, program: Program) -> Nursery | None:
        return self._nursery if program.forked and self.nursery_is_ready() else None

    def check(self) -> None:
        """For loops that wait during the start. Raises StopAsked, or ProgramEnded when any program has ended."""
        if self._stops_asked:
            raise StopAsked
        for child in self._children:
            if (returncode := child.ended()) is not None:
                raise ProgramEnded(child.program, returncode)

    def run(self, *, care: Callable[[], None] = lambda: None) -> None:
        """Keep everything running until a signal to stop arrives. ``care`` is called every CARE_EVERY_S seconds."""
        care_at = time.monotonic() + CARE_EVERY_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._stops_asked:
                next_start_at = self._look_after_children()
                wake_at = care_at if next_start_at is None else min(care_at, next_start_at)
                if selector.select(max(0.0, wake_at - time.monotonic())):
                    self._drain_wakeups()
                if time.monotonic() >= care_at:
                    care()
                    care_at = time.monotonic() + CARE_EVERY_S

    def _look_after_children(self) -> float | None:
        """Plan and do restarts. Returns when the next one is due."""
        for child in self._children:
            if (returncode := child.ended()) is not None:
                wait_s = child.plan_restart()
                self._report(
                    f"{child.program.name} ended ({describe_exit(returncode)}); starting it again in {wait_s:g} s"
                    + (f", see {child.program.log}" if child.program.log else "")
                )
            if child.process is None and child.next_start_at <= time.monotonic():
                self._start_again(child)
        if self._nursery is not None:
            reap_orphans({child.process.pid for child in self._children if child.process is not None})
        return min((child.next_start_at for child in self._children if child.process is None), default=None)

    def _start_again(self, child: _Child) -> None:
        try:
            child.start(self._usable_nursery(child.program))
        except OSError as error:  # no memory, no process to be had: the others go on
            wait_s = child.plan_restart()
            self._report(f"{child.program.name} cannot be started ({error.strerror}); trying it again in {wait_s:g} s")

    def stop(self) -> None:
        """Stop everything, lowest rank first. Another signal meanwhile shortens the waiting; nothing is left behind."""
        for rank in sorted({child.program.stop_rank for child in self._children}):
            running = [c for c in self._children if c.program.stop_rank == rank and c.process is not None]
            for child in running:
                child.ask_to_end()
            self._wait_for_end(running)
        self._children.clear()
        if self._nursery is not None:
            reap_orphans(set())
            self._nursery.close()
        self._wake_read.close()
        self._wake_write.close()

    def _wait_for_end(self, children: list[_Child]) -> None:
        began_at = time.monotonic()
        stops_before = self._stops_asked
        while running := [child for child in children if child.process is not None]:
            waited_s = time.monotonic() - began_at
            hurried = self._stops_asked > max(stops_before, 1)
            for child in running:
                grace_s = min(child.program.grace_s, HURRIED_GRACE_S) if hurried else child.program.grace_s
                if waited_s > grace_s:
                    child.signal_group(signal.SIGKILL)
                if child.ended() is None and waited_s > child.program.grace_s + KILL_WAIT_S:
                    self._report(f"{child.program.name} does not end, even when killed; leaving it to the kernel")
                    child.process = None
            time.sleep(0.02)

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass


def describe_exit(returncode: int) -> str:
    """``exit code 3`` or ``killed by SIGKILL``."""
    if returncode >= 0:
        return f"exit code {returncode}"
    return f"killed by {signal.Signals(-returncode).name}"
