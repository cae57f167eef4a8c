"""The lane's access log: the same lines that Django's middleware writes, many at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from apps.core.asgi import Scope
from apps.core.logs import write_ready_lines
from ytserver.fast_lane.reading import Asked

PERIOD_S = 0.1
MAX_LINES = 2000

_logger = logging.getLogger("ytserver.access")


class AccessLog:
    """Belongs to one event loop. Lines are written within PERIOD_S."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0

    def add(
        self, scope: Scope, asked: Asked, request_id: str, key_prefix: str, *, status: int, waited_s: float
    ) -> None:
        """Everything in it is ours, or was made safe when the request was read."""
        if not _logger.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        self._lines.append(
            f'{{"method":"{scope["method"]}",{asked.log_fields},"status":{status},"duration_ms":{waited_s * 1000:.1f},'
            f'"key_prefix":"{key_prefix}","client":{_json(client[0]) if client else "null"},"event":"request",'
            f'"logger":"ytserver.access","level":"info","timestamp":"{_now()}","request_id":"{request_id}"}}'
        )
        self._count += 1
        if self._count == 1:
            asyncio.get_running_loop().call_later(PERIOD_S, self.write)
        elif self._count >= MAX_LINES:
            self.write()

    def write(self) -> None:
        self._count = 0
        lines, self._lines = self._lines, []
        if lines:
            write_ready_lines(_logger, lines)


def _now() -> str:
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_shown_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=2)
def _shown_second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def _json(text: str) -> str:
    return orjson.dumps(text).decode()
