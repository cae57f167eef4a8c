"""Web processes under load: the real one, or a reference under the same server, each on its own port."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

from apps.core.listener import bind_listener
from apps.core.supervisor import end_with_us

START_TIMEOUT_S = 60
OTHERS_START_S = 4.0
IDLE_TIMEOUT_S = 5.0
IDLE_LOOK_S = 0.3


@contextmanager
def web_process(*module: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Port and process id of ``python -m <module> <listening descriptor>``, with these environment variables."""
    with web_processes(1, *module, **settings) as (port, processes):
        yield port, processes[0]


@contextmanager
def web_processes(count: int, *module: str, **settings: str) -> Iterator[tuple[int, list[int]]]:
    """So many processes behind one listening socket, made as ``up`` makes it."""
    name, *arguments = module or ("apps.core.web_worker",)
    running: list[subprocess.Popen[bytes]] = []
    with bind_listener("127.0.0.1", 0) as listener:
        listener.listen(4096)
        port = listener.getsockname()[1]
        for _ in range(count):
            process = subprocess.Popen(
                end_with_us([sys.executable, "-m", name, str(listener.fileno()), *arguments]),
                pass_fds=(listener.fileno(),),
                env={**os.environ, **settings},
                stderr=subprocess.DEVNULL,
            )
            running.append(process)
    try:
        _wait_for(port, running)
        time.sleep(OTHERS_START_S if count > 1 else 0)  # whoever answered first, the others take their time
        yield port, [process.pid for process in running]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_idle(processes: Iterable[int]) -> None:
    """Until they have hardly worked for a moment, IDLE_TIMEOUT_S at most: callers that have gone left them requests."""
    running = [psutil.Process(process) for process in processes]
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    used_s = math.inf
    while used_s > IDLE_LOOK_S / 10 and time.monotonic() < deadline:
        before = _used_s(running)
        time.sleep(IDLE_LOOK_S)
        used_s = _used_s(running) - before


def _used_s(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _wait_for(port: int, running: list[subprocess.Popen[bytes]]) -> None:
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
