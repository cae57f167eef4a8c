"""The newest errors of all processes, for the admin: each process hands its own to a bounded list in Redis."""

from __future__ import annotations

import json
import logging
import queue
import threading
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


class ErrorLogHandler(logging.Handler):
    """Sends errors, as the (redacting) formatter writes them, by a thread of its own: whoever logs never waits.

    What comes faster than Redis takes it is dropped; standard error has all of it.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self._waiting: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName == "error-log":
            return
        with suppress(queue.Full):
            self._waiting.put_nowait(_shortened(self.format(record)))
        if self._thread is None or not self._thread.is_alive():  # the first error, also after a fork
            self._thread = threading.Thread(target=self._send, name="error-log", daemon=True)
            self._thread.start()

    def _send(self) -> None:
        while True:
            text = self._waiting.get()
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
