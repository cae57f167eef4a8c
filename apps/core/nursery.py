"""Imports everything once and forks programs from it: ``python -m apps.core.nursery <descriptor> <room>``.

A program that is forked starts in milliseconds and shares the memory of what was imported. Nothing here connects to
anything or starts a thread before a fork. The supervisor's side is in ``forking``. Linux only.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from apps.core.imports import import_rest_of_web, import_web, import_worker

PR_SET_PDEATHSIG = 1
ARGUMENTS_START, ARGUMENTS_END = 47, 48  # fields of /proc/self/stat, counted from 0
GO = b"g"
MAX_ORDER_BYTES = 64 * 1024
MAX_DESCRIPTORS = 8
FREE_DESCRIPTORS = 256  # from here on none is in use yet


@dataclass(frozen=True, kw_only=True)
class _Order:
    """A program to become: ``command`` is ``[python, "-m", module, argument, ...]``."""

    number: int
    command: list[str]
    folder: str
    death_signal: int
    wanted: list[int]  # the numbers that the descriptors must have
    descriptors: list[int]  # go (nothing runs before it was said), standard output, standard error, then ``wanted``


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    supervisor_pid = os.getppid()
    preload()
    control.send(json.dumps({"ready": os.getpid()}).encode())
    while (order := _receive(control)) is not None:
        if _fork(control, order):
            control.close()
            _become(order, supervisor_pid)
            return


def preload() -> None:
    """What web processes and workers import before their first work."""
    import_web()
    import_rest_of_web()
    import_worker()
    gc.collect()
    gc.freeze()  # a collection in a child must not touch, and so copy, what it shares
    if threading.active_count() > 1:
        raise RuntimeError(f"a thread was started by an import: {threading.enumerate()}")


def _receive(control: socket.socket) -> _Order | None:
    """The next order; None when the supervisor is gone."""
    text, descriptors, _, _ = socket.recv_fds(control, MAX_ORDER_BYTES, MAX_DESCRIPTORS)
    return _Order(**json.loads(text), descriptors=descriptors) if text else None


def _fork(control: socket.socket, order: _Order) -> bool:
    """True in the new process. The one between ends at once: so the new one becomes a child of the supervisor (which is
    a subreaper), and can be waited for like any other. The supervisor hears of it afterwards."""
    read_end, write_end = os.pipe()
    try:
        middle_pid = os.fork()
        if middle_pid == 0:
            if _is_middle():
                os._exit(0)
            os.setsid()
            os.write(write_end, str(os.getpid()).encode())
            return True
        os.close(write_end)
        write_end = -1
        os.waitpid(middle_pid, 0)
        pid = int(os.read(read_end, 20) or b"0")
    except OSError:  # no process, or no memory, to be had
        pid = 0
    finally:
        for descriptor in (read_end, write_end):
            if descriptor >= 0:
                os.close(descriptor)
    for descriptor in order.descriptors:
        os.close(descriptor)
    control.send(json.dumps({"number": order.number, "pid": pid}).encode())
    return False


def _is_middle() -> bool:
    try:
        return os.fork() > 0
    except OSError:
        return True


def _become(order: _Order, supervisor_pid: int) -> None:
    """Run the program as ``python -m`` would, in its folder, with its descriptors, once the supervisor says go."""
    opened = [os.open(os.devnull, os.O_RDONLY), *order.descriptors]  # their numbers may be wanted ones
    nothing, go, *others = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, FREE_DESCRIPTORS) for number in opened]
    for number in opened:
        os.close(number)
    if os.read(go, 1) != GO:  # the supervisor gave up
        sys.exit(1)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, order.death_signal, 0, 0, 0)
    if os.getppid() != supervisor_pid:  # it died before the kernel knew our wish
        sys.exit(1)
    for number, wanted in zip((nothing, *others), (0, 1, 2, *order.wanted), strict=True):
        os.dup2(number, wanted)
    for number in (go, nothing, *others):
        os.close(number)
    signal.set_wakeup_fd(-1)
    os.chdir(order.folder)
    show_command(order.command)
    module, sys.argv = order.command[2], order.command[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def show_command(command: list[str]) -> None:
    """Have ``ps`` show ``command``: written over our own arguments, as far as there is room."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = (int(fields[number - 2]) for number in (ARGUMENTS_START, ARGUMENTS_END))
    text = "\0".join(command).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main()
