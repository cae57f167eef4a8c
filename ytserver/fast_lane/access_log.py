"""The lane's access log: the same lines that Django's middleware writes, many at a time."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from apps.core.asgi import Scope
from apps.core.logs import ReadyLines
from ytserver.fast_lane.reading import Asked

PERIOD_S = 0.1
MAX_LINES = 2000

_logger = logging.getLogger("ytserver.access")


class AccessLog:
    """Belongs to one event loop. Lines are written within PERIOD_S."""

    def __init__(self) -> None:
        self._lines = ReadyLines()
        self._count = 0

    def add(
        self, scope: Scope, asked: Asked, request_id: str, key_prefix: str, *, status: int, waited_s: float
    ) -> None:
        """Everything in it is ours, or was made safe when the request was read."""
        if not _logger.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        fields = {
            "method": scope["method"],
            "path": asked.shown_path,
            "route": asked.route,
            "status": status,
            "duration_ms": round(waited_s * 1000, 1),
            "key_prefix": key_prefix,
            "client": client[0] if client else None,
            "event": "request",
            "logger": "ytserver.access",
            "level": "info",
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "request_id": request_id,
        }
        self._lines.add(fields)
        self._count += 1
        if self._count == 1:
            asyncio.get_running_loop().call_later(PERIOD_S, self.write)
        elif self._count >= MAX_LINES:
            self.write()

    def write(self) -> None:
        self._count = 0
        self._lines.write(_logger)
