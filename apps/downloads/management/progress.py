"""One line on a terminal that shows how a fetch comes along; where there is no terminal, a line for each new stage."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Self

from django.core.management.base import OutputWrapper

from apps.downloads.services.media import MediaState, Tier

BAR = 24
EVERY_S = 0.1
MIB = 1024 * 1024


class ProgressLine:
    """Use it as a context: at the end the line is wiped. ``quiet``: shows nothing at all."""

    def __init__(self, out: OutputWrapper, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._is_terminal = bool(out.isatty())
        self._stage = ""
        self._shown_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal and not self._quiet:
            self._out.write("\r\x1b[K", str, "")
            self._out.flush()

    def show_fetch(self, state: MediaState | None) -> None:
        """``state`` as ``follow_media`` yields it."""
        if state is None:
            self.show_bytes("asking the sources", 0, None)
        elif state.tier is Tier.EXTERNAL and state.job is not None:
            job = state.job
            self.show_bytes(job.stage, job.bytes_done, job.bytes_total, speed=job.speed_bytes_per_s, eta_s=job.eta_s)

    def show_bytes(
        self, stage: str, done: int, total: int | None, *, speed: float | None = None, eta_s: float | None = None
    ) -> None:
        if self._quiet:
            return
        if not self._is_terminal:
            if stage != self._stage:
                self._out.write(stage, str)
        elif stage != self._stage or time.monotonic() - self._shown_at >= EVERY_S:
            text = _line(stage, done, total, speed, eta_s)[: shutil.get_terminal_size().columns - 1]
            self._out.write(f"\r\x1b[K{text}", str, "")
            self._out.flush()
            self._shown_at = time.monotonic()
        self._stage = stage


def _line(stage: str, done: int, total: int | None, speed: float | None, eta_s: float | None) -> str:
    parts = []
    if total:
        share = min(1.0, done / total)
        parts.append(f"[{'#' * round(share * BAR):<{BAR}}] {share:6.1%}  {done / MIB:.1f} of {total / MIB:.1f} MiB")
    elif done:
        parts.append(f"{done / MIB:.1f} MiB")
    if speed:
        parts.append(f"{speed / MIB:.1f} MiB/s")
    if eta_s:
        parts.append(f"{eta_s:.0f} s left")
    return "  ".join([*parts, stage])
