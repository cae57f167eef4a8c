"""What the lane's answers add to statistics: kept for a moment, then written in few calls; no caller waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from apps.analytics.recorder import EventRecorder
from apps.core.outages import outage_of
from apps.downloads.ready import Ready
from apps.downloads.services.cache_stats import Answered, count_answers
from apps.downloads.services.media import Tier
from apps.keys.last_used import note_keys_used

PERIOD_S = 1.0
MAX_KEPT = 50_000  # different ones, while MongoDB or Redis is away
MAX_TRIES = 60  # in a row, that fail for another reason than an outage

logger = logging.getLogger(__name__)


class _Given(NamedTuple):
    """Answers that count as one kind. All of it is text, which is quickly found again."""

    asset_id: str  # empty: metadata
    tier: str
    key_prefix: str
    address: str
    polled: bool


class Tally:
    """Belongs to one event loop. A process that is killed loses the counts of its last second (never its events)."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self._given: dict[_Given, int] = {}
        self._answers: Counter[Answered] = Counter()  # that are not written yet
        self._tries = 0
        self._writer: asyncio.Task[None] | None = None

    def add(self, ready: Ready, key_prefix: str, address: str, *, polled: bool) -> None:
        """Count an answer as a use of its asset, of the key, and of the API by this caller."""
        given = _Given(ready.asset_id or "", ready.facts.get("tier", ""), key_prefix, address, polled)
        count = self._given.get(given, 0)
        if count or len(self._given) < MAX_KEPT:
            self._given[given] = count + 1
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
        while self._given or self._answers:
            await asyncio.sleep(PERIOD_S)
            await self._write()
        self._writer = None

    async def _write(self) -> None:
        answers: Counter[Answered] = Counter()
        try:
            self._tell()
            answers, self._answers = self._answers, answers
            uncounted = await asyncio.to_thread(count_answers, answers) if answers else {}
        except Exception as error:  # whatever it is: without its task a process would count nothing more
            uncounted = answers
            if outage_of(error) is not None:
                self._answers.update(uncounted)
                return
            logger.error("answers were not counted", exc_info=error)
        self._tries = self._tries + 1 if uncounted else 0
        if self._tries < MAX_TRIES:
            self._answers.update(uncounted)
            return
        logger.error("answers are never counted: too many tries failed", extra={"count": sum(uncounted.values())})
        self._tries = 0

    def _tell(self) -> None:
        given, self._given = self._given, {}
        for each, count in given.items():
            answered = Answered(each.asset_id, Tier(each.tier), each.key_prefix, each.polled) if each.asset_id else None
            if answered is not None and (answered in self._answers or len(self._answers) < MAX_KEPT):
                self._answers[answered] += count
        note_keys_used({each.key_prefix for each in given})
        for prefix, address in {(each.key_prefix, each.address) for each in given}:
            self._recorder.seen(prefix, address)
