"""The figures of the overview: what is in the cache, what is being fetched, what is waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.cache import cache

from apps.core.tunables import hot_max_bytes
from apps.downloads.documents import MediaJob
from apps.keys.documents import ApiKey
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import FINISHED_STATES, Asset, AssetState, MediaKind, TelegramBot

FRESH_S = 10
MAX_TIME_MS = 5_000
SHOWN_JOBS = 8


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
    jobs: list[MediaJob]  # the newest of those that run or wait
    has_key: bool
    has_bot: bool

    @property
    def hot_percent(self) -> int:
        return min(100, round(100 * self.hot_bytes / self.hot_max_bytes))

    @property
    def is_new(self) -> bool:
        """Whether there are first steps left to do."""
        return not (self.has_key and self.has_bot and self.cached_count)


def figures() -> Figures:
    """Everything for one look. What is costly to count is at most FRESH_S old, however many people look."""
    groups = _kept("assets", _asset_groups)
    hot_count, hot_bytes = _kept("hot", _hot_size)
    done = {state.value for state in FINISHED_STATES}
    finished = [group for group in groups if group["state"] in done]
    return Figures(
        states=_state_rows(groups),
        cached_count=sum(group["count"] for group in finished),
        cached_bytes=sum(group["bytes"] for group in finished),
        hot_count=hot_count,
        hot_bytes=hot_bytes,
        hot_max_bytes=hot_max_bytes(),
        active_jobs=MediaJob.objects(active=True).count(),
        jobs=list(MediaJob.objects(active=True).order_by("-updated_at").limit(SHOWN_JOBS)),
        has_key=ApiKey.objects(active=True).first() is not None,
        has_bot=TelegramBot.objects.first() is not None,
    )


def _kept(name: str, read: Any) -> Any:
    return cache.get_or_set(f"dashboard:{name}", read, FRESH_S)


def _asset_groups() -> list[dict[str, Any]]:
    rows = Asset._get_collection().aggregate(
        [
            {"$match": {"state": {"$gte": ""}}},  # all; so that an index alone answers
            {
                "$group": {
                    "_id": {"state": "$state", "kind": "$kind"},
                    "count": {"$sum": 1},
                    "bytes": {"$sum": "$size_bytes"},
                }
            },
        ],
        maxTimeMS=MAX_TIME_MS,
    )
    return [{**row["_id"], "count": row["count"], "bytes": row["bytes"]} for row in rows]


def _state_rows(groups: list[dict[str, Any]]) -> list[StateRow]:
    counts = {(group["state"], group["kind"]): group["count"] for group in groups}
    rows = [
        StateRow(
            state=state.value,
            video=counts.get((state.value, MediaKind.VIDEO.value), 0),
            audio=counts.get((state.value, MediaKind.AUDIO.value), 0),
        )
        for state in AssetState
    ]
    return [row for row in rows if row.video or row.audio]


def _hot_size() -> tuple[int, int]:
    sizes = [entry.disk_bytes for entry in HotStore(settings.ENV.hot_root).entries()]
    return len(sizes), sum(sizes)
