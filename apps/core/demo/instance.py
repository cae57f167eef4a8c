"""A whole server in a process of its own, for the demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.core.embedded import free_port
from apps.core.supervisor import end_with_us
from ytserver.env import BASE_DIR, without_settings

STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0


class DemoFailed(Exception):
    """A step did not hold. The text says which and how."""


class Instance:
    """A whole server in a process of its own, over a temporary folder."""

    def __init__(self, outside: Mapping[str, str], *, folder: Path) -> None:
        self.var_dir = folder
        mine = {"VAR_DIR": str(folder), "PORT": str(free_port()), "OUTBOUND_ALLOW": "127.0.0.0/8", "DEBUG": "true"}
        self._environ = {**without_settings(os.environ), **mine, **outside}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> dict[str, Any]:
        """Start it and return the line of ``up --json``."""
        command = [sys.executable, str(BASE_DIR / "manage.py"), "up", "--json"]
        with (self.var_dir / "up.log").open("w") as log, interrupts_held_back():
            self._process = subprocess.Popen(
                end_with_us(command),
                env=self._environ, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise DemoFailed(f"the server did not start: {(self.var_dir / 'up.log').read_text().strip()}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def manage(self, *arguments: str) -> str:
        """Run a management command against it and return what it prints."""
        done = subprocess.run(
            [sys.executable, str(BASE_DIR / "manage.py"), *arguments],
            env=self._environ, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DemoFailed(f"manage.py {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """End it with everything that belongs to it. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes after this block, so that a process which was just started is never forgotten."""
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if noted:
        raise KeyboardInterrupt
