"""Web processes under load: the real one, or a reference under the same server, each on its own port."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from apps.core.forking import ForkedProcess, Nursery, can_fork_programs
from apps.core.listener import bind_listener
from apps.core.supervisor import Program, end_with_us
from ytserver.env import BASE_DIR

START_TIMEOUT_S = 60
END_TIMEOUT_S = 20
OTHERS_START_S = 4.0
IDLE_TIMEOUT_S = 5.0
IDLE_LOOK_S = 0.3

_Process = subprocess.Popen[bytes] | ForkedProcess


@contextmanager
def web_process(*module: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Port and process id of ``python -m <module> <listening descriptor>``, with these environment variables."""
    with web_processes(1, *module, **settings) as (port, processes):
        yield port, processes[0]


@contextmanager
def web_processes(count: int, *module: str, **settings: str) -> Iterator[tuple[int, list[int]]]:
    """So many processes behind one listening socket. It is made as ``up`` makes it, and so are the real ones: forks."""
    name, *arguments = module or ("apps.core.web_worker",)
    environ = {**os.environ, **settings}
    running: list[_Process] = []
    with ExitStack() as stack:
        nursery = stack.enter_context(_nursery(environ)) if not module and can_fork_programs() else None
        stack.callback(_end, running)
        with bind_listener("127.0.0.1", 0) as listener:
            listener.listen(4096)
            port = listener.getsockname()[1]
            program = Program(
                name="web",
                command=[sys.executable, "-m", name, str(listener.fileno()), *arguments],
                environ=environ,
                log=None,
                stop_rank=0,
                grace_s=END_TIMEOUT_S,
                folder=BASE_DIR,
                death_signal=signal.SIGTERM,
                pass_fds=(listener.fileno(),),
            )
            for _ in range(count):
                running.append(_start(program) if nursery is None else _fork(nursery, program))
        _wait_for(port, running)
        time.sleep(OTHERS_START_S if count > 1 else 0)  # whoever answered first, the others take their time
        yield port, [process.pid for process in running]


@contextmanager
def _nursery(environ: dict[str, str]) -> Iterator[Nursery]:
    """Ready to fork web processes with these environment variables."""
    nursery = Nursery()
    process = subprocess.Popen(
        end_with_us(nursery.command), pass_fds=(nursery.descriptor,), env=environ, cwd=BASE_DIR,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not nursery.is_ready(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the nursery did not start")
            time.sleep(0.05)
        yield nursery
    finally:
        _end([process])
        nursery.close()


def _fork(nursery: Nursery, program: Program) -> ForkedProcess:
    with Path(os.devnull).open("wb") as nowhere:
        process = nursery.fork(program, out=sys.stdout.fileno(), err=nowhere.fileno())
    if process is None:
        raise RuntimeError("the nursery made no fork")
    return process


def _start(program: Program) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        end_with_us(program.command, death_signal=program.death_signal),
        pass_fds=program.pass_fds,
        env=dict(program.environ),
        cwd=program.folder,
        stderr=subprocess.DEVNULL,
    )


def _end(running: Sequence[_Process]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + END_TIMEOUT_S
    for process in running:
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.02)


def wait_until_idle(processes: Iterable[int], *, timeout_s: float = IDLE_TIMEOUT_S) -> None:
    """Until they have hardly worked for a moment, ``timeout_s`` at most: callers that have gone left them requests."""
    running = [psutil.Process(process) for process in processes]
    deadline = time.monotonic() + timeout_s
    used_s = math.inf
    while used_s > IDLE_LOOK_S / 10 and time.monotonic() < deadline:
        before = _used_s(running)
        time.sleep(IDLE_LOOK_S)
        used_s = _used_s(running) - before


def _used_s(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _wait_for(port: int, running: Sequence[_Process]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in running):
            raise RuntimeError("the server ended at once")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not answer")
