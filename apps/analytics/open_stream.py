"""One long stream on its way to become one event, for whoever sends it himself and not through ``send``."""

from __future__ import annotations

import time
from collections.abc import Mapping

from apps.analytics.active_users import user_id
from apps.analytics.recorder import CLIENT_LEFT, EventRecorder


class OpenStream:
    """What ``Recording`` does for answers that pass through it. Open from the start on; ``close`` it in any case."""

    __slots__ = ("_facts", "_is_recorded", "_recorder", "_route", "_started_at", "_user", "first_byte_s", "sent_bytes")

    def __init__(
        self, recorder: EventRecorder, *, route: str, facts: Mapping[str, str], address: str, started_at: float
    ) -> None:
        """``facts``: key_prefix, video_id, asset_id, tier. ``started_at``: ``time.monotonic()``."""
        self._recorder = recorder
        self._route = route
        self._facts = facts
        self._started_at = started_at
        self._is_recorded = False
        self._user = user_id(facts["key_prefix"], address)
        self.first_byte_s: float | None = None
        self.sent_bytes = 0
        recorder.stream_opened(self._user)

    @property
    def lasted_s(self) -> float:
        return time.monotonic() - self._started_at

    def sent(self, size_bytes: int) -> None:
        """Bytes of the body were handed to the server."""
        if size_bytes and self.first_byte_s is None:
            self.first_byte_s = self.lasted_s
        self.sent_bytes += size_bytes
        self._recorder.counters.sent(size_bytes, "stream")

    async def record(self, status: int, *, more_bytes: int = 0) -> None:
        """Count it and append its event, once. ``more_bytes`` leave right after that. Raises nothing."""
        await self._record(status, None, self.sent_bytes + more_bytes)

    def close(self) -> None:
        """Nobody streams any more."""
        self._recorder.stream_closed(self._user)

    async def record_broken_off(self, error: str | None) -> None:
        """The same as ``record`` for a client that left, or (``error``) was cut off. Does nothing after it."""
        await self._record(CLIENT_LEFT, error, self.sent_bytes)

    async def _record(self, status: int, error: str | None, bytes_sent: int) -> None:
        if self._is_recorded:
            return
        self._is_recorded = True
        if status != CLIENT_LEFT and self.first_byte_s is None:
            self.first_byte_s = self.lasted_s
        self._recorder.counters.answered(
            route=self._route, status=status, kind="stream", tier=self._facts["tier"], error=error,
            first_byte_s=self.first_byte_s,
        )  # fmt: skip
        event = {
            "at": time.time(),
            "route": self._route,
            "method": "GET",
            "status": status,
            "first_byte_s": self.first_byte_s,
            "duration_s": self.lasted_s,
            "bytes_sent": bytes_sent,
            **self._facts,
            **({"error": error} if error else {}),
        }
        await self._recorder.append_event(event)
