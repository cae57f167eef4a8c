"""Ports for servers that a test starts later, or starts again."""

from __future__ import annotations

import os
import socket
import zlib

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
WORKER_NUMBER = int(WORKER.removeprefix("gw")) + 1 if WORKER.startswith("gw") else 0
WORKERS = 16
_FIRST = 10_000 + zlib.crc32(os.environ.get("YTSERVER_TEST_ROOT", str(os.getpid())).encode()) % 1_000 * WORKERS
_candidates = iter(range(_FIRST + WORKER_NUMBER % WORKERS, 32_000, WORKERS))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, another one each time, and that nobody takes before the test does.

    The system gives ports from 32768 on to whoever asks for any port (stand-ins, clients); these lie below, and each
    worker of pytest-xdist has its own.
    """
    for port in _candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is left")
