"""How far a fetch is, measured on the event loop and written to the job now and then."""

from __future__ import annotations

import time
from typing import Any

SMOOTHING = 0.3


class Progress:
    """Counts bytes of all files of one plan. Speed is smoothed over a few seconds."""

    def __init__(self) -> None:
        self.stage = "connecting"
        self.reset(files=1)

    def reset(self, *, files: int) -> None:
        """Begin a plan with that many files."""
        self._sizes: dict[int, int] = {}
        self._files = files
        self._share = 0.0
        self._bytes_done = 0
        self._speed: float | None = None
        self._measured_at = time.monotonic()
        self._measured_bytes = 0

    def counts_as_file(self, share: float) -> None:
        """The finished file will have at least this share of the bytes that arrive; 0: nobody can say."""
        self._share = share

    def set_size(self, file: int, size_bytes: int) -> None:
        self._sizes[file] = size_bytes

    def have(self, size_bytes: int) -> None:
        """Bytes that an earlier attempt brought: done, but no measure of speed."""
        self._bytes_done += size_bytes
        self._measured_bytes += size_bytes

    def add(self, size_bytes: int) -> None:
        self._bytes_done += size_bytes
        self.stage = "downloading"

    def fields(self) -> dict[str, Any]:
        """The job's fields now. Call it at a steady pace: each call measures the speed since the one before."""
        now = time.monotonic()
        passed_s = now - self._measured_at
        if passed_s > 0 and self.stage == "downloading":
            speed = (self._bytes_done - self._measured_bytes) / passed_s
            self._speed = speed if self._speed is None else self._speed + SMOOTHING * (speed - self._speed)
        self._measured_at, self._measured_bytes = now, self._bytes_done
        total = sum(self._sizes.values()) if len(self._sizes) == self._files else None
        left = total - self._bytes_done if total is not None else None
        return {
            "stage": self.stage,
            "bytes_done": self._bytes_done,
            "bytes_total": total,
            "size_at_least": int(max(self._bytes_done, total or 0) * self._share) or None,
            "speed_bytes_per_s": self._speed if self.stage == "downloading" else None,
            "eta_s": left / self._speed if left is not None and self._speed and self.stage == "downloading" else None,
        }
