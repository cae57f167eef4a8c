"""A bounded pool of processes that run yt-dlp; one that hangs, dies or babbles is killed with all it started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from apps.core.errors import UpstreamError, UpstreamTimeout
from apps.downloads.providers.failures import OwnQueueFull
from apps.downloads.stopping import STEP_S, raise_if_stopped

ROOT = Path(__file__).resolve().parents[3]
MODULE = "apps.downloads.providers.ytdlp_child"
MEMORY_BYTES = 1536 * 1024 * 1024
MAX_ANSWER_BYTES = 8 * 1024 * 1024
QUESTIONS_PER_CHILD = 100  # then it is replaced: yt-dlp keeps what it has seen
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")  # no secrets: it runs foreign JavaScript

log = structlog.get_logger(__name__)


class _ChildGoneError(Exception):
    """The process ended, or said something that is no answer."""


class _Child:
    """One process. Not thread-safe: whoever has it out of the pool talks to it alone."""

    def __init__(self, config: dict[str, Any], home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.questions = 0
        self._is_ready = False
        self._received = bytearray()
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={"HOME": str(home), **{name: os.environ[name] for name in PASSED_ON if name in os.environ}},
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process that was started with pipes has none")
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self.pid = process.pid
        try:
            self._say(config)
        except _ChildGoneError:
            self.kill()
            raise

    def wait_until_ready(self, *, deadline: float) -> None:
        """Raises UpstreamError when yt-dlp does not take its options."""
        if self._is_ready:
            return
        greeting = self.hear(deadline=deadline)
        if "ready" not in greeting:
            log.error("ytdlp_options_refused", reason=str(greeting.get("broken")))
            raise UpstreamError
        self._is_ready = True

    def ask(self, question: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        """Raises UpstreamTimeout at the deadline, WorkStopped when nobody wants the answer any more, _ChildGoneError
        when it cannot answer."""
        self.questions += 1
        self._say(question)
        return self.hear(deadline=deadline)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except OSError as error:
            raise _ChildGoneError from error

    def hear(self, *, deadline: float) -> dict[str, Any]:
        descriptor = self._stdout.fileno()
        while b"\n" not in self._received:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise UpstreamTimeout
            raise_if_stopped()
            if not _readable(descriptor, min(left_s, STEP_S)):
                continue
            piece = os.read(descriptor, 256 * 1024)
            self._received += piece
            if not piece or len(self._received) > MAX_ANSWER_BYTES:
                raise _ChildGoneError
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _ChildGoneError from error
        if not isinstance(answer, dict):
            raise _ChildGoneError
        return answer

    def kill(self) -> None:
        """End it and everything it started, and wait for that."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()
        self._process.wait()


class ChildPool:
    """At most ``size`` processes, started when first needed. Thread-safe."""

    def __init__(self, *, options: dict[str, Any], allow: list[str], home: Path, size: int) -> None:
        self._config = {"options": options, "allow": allow, "memory_bytes": MEMORY_BYTES}
        self._home = home
        self._size = size
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._closed = False
        # A child dies with the thread that started it (PR_SET_PDEATHSIG), so one thread that stays starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="ytdlp-starter")

    def ask(
        self, question: dict[str, Any], *, timeout_s: float, spoils: Callable[[dict[str, Any]], bool] = lambda _: False
    ) -> dict[str, Any]:
        """The answer of a process. Raises UpstreamTimeout or WorkStopped (then it is killed), UpstreamError when it
        died, and OwnQueueFull when more than half of the time went by before a process was free.

        ``spoils(answer)``: whether to replace the process because of what it answered.
        """
        deadline = time.monotonic() + timeout_s
        busy_until = deadline - timeout_s / 2
        while not self._slots.acquire(timeout=max(0.0, min(STEP_S, deadline - time.monotonic()))):
            raise_if_stopped()
            if time.monotonic() >= deadline:
                raise OwnQueueFull
        has_waited_long = time.monotonic() > busy_until
        try:
            try:
                return self._ask(question, deadline=deadline, spoils=spoils)
            except _ChildGoneError:  # it may have died while it was idle: once more, with another one
                return self._ask(question, deadline=deadline, spoils=spoils)
        except _ChildGoneError as error:
            raise UpstreamError from error
        except UpstreamTimeout:
            if has_waited_long:
                raise OwnQueueFull from None
            raise
        finally:
            self._slots.release()

    def _ask(
        self, question: dict[str, Any], *, deadline: float, spoils: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        child: _Child | None = None
        keep = False
        try:
            child = self._take()
            child.wait_until_ready(deadline=deadline)
            answer = child.ask(question, deadline=deadline)
            keep = child.questions < QUESTIONS_PER_CHILD and not spoils(answer)
            return answer
        except _ChildGoneError:
            log.warning("ytdlp_child_gone", pid=child.pid if child else None)
            raise
        finally:
            if child is not None:
                self._put_back(child, keep=keep)

    def warm(self) -> None:
        """Start one process now, in the background, so that the first question need not wait for it."""
        self._starter.submit(lambda: self._put_back(_Child(self._config, self._home), keep=True))

    def _take(self) -> _Child:
        with self._lock:
            if self._closed:
                raise UpstreamError
            if self._idle:
                return self._idle.pop()
        return self._starter.submit(_Child, self._config, self._home).result()

    def _put_back(self, child: _Child, *, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed and len(self._idle) < self._size:
                self._idle.append(child)
                return
        child.kill()

    def close(self) -> None:
        """End all idle processes; a busy one ends when its question is over."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()
        self._starter.shutdown(wait=False)


def _readable(descriptor: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(max(1, int(timeout_s * 1000))))
