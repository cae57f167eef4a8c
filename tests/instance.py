"""A running instance for tests: the real web server and Celery worker as processes, over the test's databases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from apps.core.supervisor import end_with_us
from tests.waiting import wait_until
from ytserver.env import BASE_DIR

PREPARE = "from ytserver.startup import prepare_database; prepare_database()"
QUEUES = "resolve,fetch,upload,care"
START_TIMEOUT_S = 200


@dataclass
class Instance:
    """``settings``: environment variables beside those of the tests. Logs go to ``folder``. ``clock``: periodic work is
    done as well."""

    folder: Path
    settings: dict[str, str]
    worker_threads: int = 8
    web_processes: int = 1
    clock: bool = False
    url: str = ""
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> Self:
        self._run([sys.executable, "-c", "import django; django.setup(); " + PREPARE])
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with listener:
            fd = listener.fileno()
            for number in range(self.web_processes):
                name = f"web{number or ''}"
                self._start(name, [sys.executable, "-m", "apps.core.web_worker", str(fd)], pass_fds=(fd,))
        celery = [sys.executable, "-m", "celery", "--skip-checks", "-A", "ytserver", "worker", "-Q", QUEUES]
        options = ["-P", "threads", "-c", str(self.worker_threads), "--without-mingle", "--without-gossip"]
        if self.clock:
            options += ["--clock", "--schedule", str(self.folder / "schedule")]
        self._start("worker", [*celery, *options, "-l", "INFO"])
        wait_until(self._is_ready, timeout_s=START_TIMEOUT_S)
        return self

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, cwd=BASE_DIR, env={**os.environ, **self.settings}, check=True, timeout=120)

    def _start(self, name: str, command: list[str], **options: Any) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                end_with_us(command),
                cwd=BASE_DIR,
                env={**os.environ, **self.settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                **options,
            )
        self._processes.append(process)

    def _is_ready(self) -> bool:
        dead = [process.args for process in self._processes if process.poll() is not None]
        if dead:
            raise AssertionError(f"ended at once: {dead}\n{self.log('web')[-2000:]}\n{self.log('worker')[-2000:]}")
        try:
            return httpx.get(f"{self.url}/api/v1/status", timeout=60).status_code == 200 and " ready" in self.log(
                "worker"
            )
        except httpx.TransportError:
            return False
