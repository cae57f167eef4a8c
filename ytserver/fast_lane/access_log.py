"""The lane's access log: the same lines that Django's middleware and the streams write, many at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from apps.core.asgi import Scope
from apps.core.logs import write_ready_lines
from apps.streaming.links import SignedLink
from ytserver.fast_lane.reading import Asked

PERIOD_S = 0.1
MAX_LINES = 2000

_logger = logging.getLogger("ytserver.access")


class _Lines:
    """Belongs to one event loop. Lines are written within PERIOD_S."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(PERIOD_S, self.write)
        elif len(self._lines) >= MAX_LINES:
            self.write()

    def write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            write_ready_lines(_logger, lines)


class AccessLog(_Lines):
    """Of the lane's answers. Everything in the lines is ours, or was made safe when the request was read."""

    def add(
        self, scope: Scope, asked: Asked, request_id: str, key_prefix: str, *, status: int, waited_s: float
    ) -> None:
        if _logger.isEnabledFor(logging.INFO):
            self._add(
                f'{{"method":"{scope["method"]}",{asked.log_fields},"status":{status},'
                f'"duration_ms":{waited_s * 1000:.1f},"key_prefix":"{key_prefix}","client":{_client(scope)},'
                f'"event":"request",{_common(request_id)}}}'
            )


class StreamLog(_Lines):
    """Of streams that the lane sends, with the fields of the stream application's lines."""

    def add(
        self,
        path: str,
        link: SignedLink,
        request_id: str,
        *,
        client: str,
        status: int,
        sent_bytes: int,
        lasted_s: float,
        outcome: str = "whole",
        error: str | None = None,
    ) -> None:
        """``link`` was checked, so it and the path are ours."""
        if _logger.isEnabledFor(logging.INFO):
            self._add(
                f'{{"method":"GET","path":"{path}","status":{status},"outcome":"{outcome}",'
                f'"error":{_json(error) if error else "null"},"sent_bytes":{sent_bytes},'
                f'"duration_ms":{lasted_s * 1000:.1f},"key_prefix":"{link.key_prefix}",'
                f'"asset_id":"{link.asset_id}","client":{_json(client)},'
                f'"event":"stream",{_common(request_id)}}}'
            )


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return _json(client[0]) if client else "null"


def _common(request_id: str) -> str:
    return f'"logger":"ytserver.access","level":"info","timestamp":"{_now()}","request_id":"{request_id}"'


def _now() -> str:
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_shown_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=2)
def _shown_second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def _json(text: str) -> str:
    return orjson.dumps(text).decode()
