"""The supervisor's side of the nursery: programs as forks of one that has imported everything."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from apps.core.nursery import GO, MAX_ORDER_BYTES

if TYPE_CHECKING:
    from apps.core.supervisor import Program

PR_SET_CHILD_SUBREAPER = 36
ANSWER_TIMEOUT_S = 5.0
ROOM = "-" * 500  # for the commands of the programs, see ``nursery.show_command``


def can_fork_programs() -> bool:
    """Elsewhere programs start by themselves: it takes the kernel's help to become the parent of another's fork."""
    return sys.platform == "linux"


class ForkedProcess:
    """What the supervisor uses of ``subprocess.Popen``, for a child that somebody else forked for us."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._returncode: int | None = None

    def poll(self) -> int | None:
        if self._returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._returncode = os.waitstatus_to_exitcode(status)
        return self._returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """Where programs are ordered. Both ends of its socket stay open here: it can be started again when it has died."""

    def __init__(self) -> None:
        """Makes this process the parent of its descendants' orphans: then forks of the nursery are children of ours."""
        _adopt_orphans(True)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(0)
        self._ready_pid = 0
        self._orders = 0

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "apps.core.nursery", str(self.descriptor), ROOM]

    @property
    def descriptor(self) -> int:
        """To be passed on to the program ``command``."""
        return self._theirs.fileno()

    def is_ready(self, pid: int | None) -> bool:
        """Whether the nursery that runs as ``pid`` has imported everything."""
        while self._answer() is not None:
            pass
        return pid is not None and self._ready_pid == pid

    def fork(self, program: Program, *, out: int, err: int) -> ForkedProcess | None:
        """Start ``program``, with the nursery's own environment. None when that does not work: start it by itself."""
        self._orders += 1
        order = {
            "number": self._orders,
            "command": list(program.command),
            "folder": str(program.folder),
            "death_signal": int(program.death_signal),
            "wanted": list(program.pass_fds),
        }
        go_read, go_write = os.pipe()
        try:
            socket.send_fds(self._ours, [json.dumps(order).encode()], [go_read, out, err, *program.pass_fds])
            pid = self._wait_for_pid(self._orders)
            if not pid:
                return None
            os.write(go_write, GO)
            return ForkedProcess(pid)
        except OSError:  # it is gone, or its queue is full
            return None
        finally:
            os.close(go_read)
            os.close(go_write)  # without "go" a fork that comes too late ends

    def _wait_for_pid(self, number: int) -> int:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (left_s := deadline - time.monotonic()) > 0:
            answer = self._answer(left_s)
            if answer is not None and answer.get("number") == number:
                return answer["pid"]
        return 0

    def _answer(self, timeout_s: float = 0) -> dict[str, int] | None:
        self._ours.settimeout(timeout_s)
        try:
            answer: dict[str, int] = json.loads(self._ours.recv(MAX_ORDER_BYTES))
        except (BlockingIOError, TimeoutError):
            return None
        finally:
            self._ours.settimeout(0)
        self._ready_pid = answer.get("ready", self._ready_pid)
        return answer

    def close(self) -> None:
        _adopt_orphans(False)
        self._ours.close()
        self._theirs.close()


def _adopt_orphans(wanted: bool) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def reap_orphans(own_pids: set[int]) -> None:
    """Let go of dead processes that were handed to us, and leave alone our own. Ends when none is left."""
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid not in own_pids:
            os.waitpid(dead.si_pid, 0)
