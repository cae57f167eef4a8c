"""The newest errors of all processes, for the admin: each process hands its own to a bounded list in Redis."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from contextlib import suppress
from typing import Any, cast

import redis

from apps.core.redis import redis_client

LIST = "yt:errors"
KEPT = 200
MAX_CHARS = 6000  # longer entries keep the beginning of each value, and the end of the trace: the cause is there
VALUE_CHARS = 300
TRACE_CHARS = 4000
ALWAYS_KEPT = ("event", "level", "logger", "timestamp", "request_id", "exception")
MAX_WAITING = 100
LAST_WORDS_S = 3.0  # how long the end of the process waits for what is still on its way
THREAD = "error-log"


class ErrorLogHandler(logging.Handler):
    """Sends errors, as the (redacting) formatter writes them, by a thread of its own: whoever logs never waits.

    What comes faster than Redis takes it is dropped; standard error has all of it. The end of the process waits at most
    ``LAST_WORDS_S`` for the errors that are not sent yet.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.addFilter(lambda record: record.threadName != THREAD)  # before the lock, which ``close`` holds meanwhile
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self._waiting.put_nowait(_shortened(self.format(record)))
        if self._thread is None or not self._thread.is_alive():  # the first error, also after a fork
            self._thread = threading.Thread(target=self._send, name=THREAD, daemon=True)
            with suppress(RuntimeError):  # no thread to be had: the next error tries again
                self._thread.start()

    def close(self) -> None:
        """Called by logging at the end of the process."""
        if self._thread is not None and self._thread.is_alive():
            deadline = time.monotonic() + LAST_WORDS_S
            with suppress(queue.Full):
                self._waiting.put(None, timeout=LAST_WORDS_S)
                self._thread.join(max(0.0, deadline - time.monotonic()))
        super().close()

    def _send(self) -> None:
        while (text := self._waiting.get()) is not None:
            with suppress(redis.RedisError, OSError), redis_client().pipeline(transaction=False) as pipeline:
                pipeline.lpush(LIST, text)
                pipeline.ltrim(LIST, 0, KEPT - 1)
                pipeline.execute()


def _shortened(line: str) -> str:
    """A log line of bounded length that is still JSON."""
    if len(line) <= MAX_CHARS:
        return line
    try:
        entry = json.loads(line)
    except ValueError:
        return line[:MAX_CHARS]
    kept = {name: entry[name] for name in ALWAYS_KEPT if name in entry} if isinstance(entry, dict) else {"event": line}
    return json.dumps(
        {
            name: str(value)[-TRACE_CHARS:] if name == "exception" else str(value)[:VALUE_CHARS]
            for name, value in kept.items()
        },
        ensure_ascii=False,
    )


def recent_errors(limit: int = 50) -> list[dict[str, Any]]:
    """The newest first: event, level, logger, timestamp, and what else was logged. Raises redis.RedisError."""
    found = []
    for raw in cast("list[bytes]", redis_client().lrange(LIST, 0, limit - 1)):
        text = raw.decode(errors="replace")
        try:
            entry = json.loads(text)
        except ValueError:
            entry = {"event": text}  # cut off: too long
        found.append(entry if isinstance(entry, dict) else {"event": text})
    return found
