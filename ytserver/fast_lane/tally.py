"""What the lane's answers add to statistics: kept for a moment, then written in few calls; no caller waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from apps.core.api_errors import SERVICE_DOWN
from apps.downloads.services.cache_stats import Answered, count_answers
from apps.keys.last_used import note_key_used

PERIOD_S = 1.0
MAX_KEPT = 50_000  # different ones, while MongoDB or Redis is away


class Tally:
    """Belongs to one event loop. A process that is killed loses the counts of its last second (never its events)."""

    def __init__(self) -> None:
        self._answers: Counter[Answered] = Counter()
        self._writer: asyncio.Task[None] | None = None

    def add(self, answered: Answered) -> None:
        if answered in self._answers or len(self._answers) < MAX_KEPT:
            self._answers[answered] += 1
        note_key_used(answered.key_prefix)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_soon(), name="lane-tally")

    async def aclose(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await self._write()

    async def _write_soon(self) -> None:
        while self._answers:
            await asyncio.sleep(PERIOD_S)
            await self._write()
        self._writer = None

    async def _write(self) -> None:
        answers, self._answers = self._answers, Counter()
        media = {answered: count for answered, count in answers.items() if answered.asset_id is not None}
        if not media:
            return
        try:
            await asyncio.to_thread(count_answers, media)
        except SERVICE_DOWN:
            answers.update(self._answers)
            self._answers = answers
