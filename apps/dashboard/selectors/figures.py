"""The figures of the overview: what is in the cache, what is being fetched, what is waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.core.tunables import hot_max_bytes
from apps.dashboard.selectors.work import jobs_at_work
from apps.downloads.documents import MediaJob
from apps.keys.documents import ApiKey
from apps.streaming.usage import hot_usage
from apps.telegram_cache.documents import AssetState, MediaKind, TelegramBot, TelegramChannel
from apps.telegram_cache.selectors import StateTotals
from apps.telegram_cache.services.totals import recent_totals


@dataclass(frozen=True, kw_only=True)
class StateRow:
    """How many assets are in a state, by kind."""

    state: str
    video: int
    audio: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    states: list[StateRow]
    cached_count: int
    cached_bytes: int
    hot_count: int
    hot_bytes: int
    hot_max_bytes: int
    active_jobs: int
    jobs: list[MediaJob]  # of those that run or wait, see ``jobs_at_work``
    has_key: bool
    has_bot: bool
    has_channel: bool

    @property
    def hot_percent(self) -> int:
        return min(100, round(100 * self.hot_bytes / self.hot_max_bytes))

    @property
    def is_new(self) -> bool:
        """Whether there are first steps left to do."""
        return not (self.has_key and self.has_bot and self.has_channel and self.cached_count)


def figures() -> Figures:
    """Everything for one look. The size of the hot store is as old as ``hot_usage`` says, the totals of the cache as
    ``recent_totals`` says, however many people look."""
    totals = recent_totals()
    hot = hot_usage()
    return Figures(
        states=_state_rows(totals.states),
        cached_count=totals.count,
        cached_bytes=totals.size_bytes,
        hot_count=hot.files,
        hot_bytes=hot.disk_bytes,
        hot_max_bytes=hot_max_bytes(),
        active_jobs=MediaJob.objects(active=True).count(),
        jobs=jobs_at_work(),
        has_key=ApiKey.objects(active=True).first() is not None,
        has_bot=TelegramBot.objects.first() is not None,
        has_channel=TelegramChannel.objects.first() is not None,
    )


def _state_rows(totals: Sequence[StateTotals]) -> list[StateRow]:
    counts = {(of_state.state, of_state.kind): of_state.count for of_state in totals}
    rows = [
        StateRow(
            state=state.value,
            video=counts.get((state.value, MediaKind.VIDEO.value), 0),
            audio=counts.get((state.value, MediaKind.AUDIO.value), 0),
        )
        for state in AssetState
    ]
    return [row for row in rows if row.video or row.audio]
