"""One web process under load: the real one, or a reference under the same server, each on its own port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from apps.core.supervisor import end_with_us

START_TIMEOUT_S = 60


@contextmanager
def web_process(*module: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Port and process id of ``python -m <module> <listening descriptor>``, with these environment variables."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port = listener.getsockname()[1]
        name, *arguments = module or ("apps.core.web_worker",)
        process = subprocess.Popen(
            end_with_us([sys.executable, "-m", name, str(listener.fileno()), *arguments]),
            pass_fds=(listener.fileno(),),
            env={**os.environ, **settings},
            stderr=subprocess.DEVNULL,
        )
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once: {process.args}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not answer")
