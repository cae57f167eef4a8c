"""Reads of the cache's record: assets, bots, channels. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.telegram_cache.documents import (
    DISABLED_BY_OPERATOR,
    FINISHED_STATES,
    Asset,
    AssetState,
    BotState,
    MediaKind,
    PartState,
    TelegramBot,
    TelegramChannel,
)

MAX_PAGE = 500
MAX_TIME_MS = 20_000
MAX_PLAYABLE_TRIES = 5
_FINISHED = [state.value for state in FINISHED_STATES]


@dataclass(frozen=True, kw_only=True)
class StateTotals:
    """Assets of one kind in one state."""

    state: str
    kind: str
    count: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class KindTotals:
    """Finished assets of one kind."""

    kind: str
    count: int
    size_bytes: int
    in_telegram: int


@dataclass(frozen=True, kw_only=True)
class UsedAsset:
    asset_id: str
    video_id: str
    kind: str
    variant: str
    title: str
    size_bytes: int
    access_count: int
    last_accessed_at: datetime | None
    width: int | None = None  # of the picture, as measured
    height: int | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class CacheTotals:
    """What the cache holds. ``states`` counts every asset, also those that failed."""

    states: tuple[StateTotals, ...]
    most_used: tuple[UsedAsset, ...]
    orphans: int
    orphans_left: int = 0  # of them: nobody tries to remove these any more

    @property
    def finished(self) -> list[StateTotals]:
        return [of_state for of_state in self.states if of_state.state in _FINISHED]

    @property
    def by_kind(self) -> list[KindTotals]:
        """Finished assets, of every kind there is."""
        return [_of_kind(kind.value, [row for row in self.finished if row.kind == kind]) for kind in MediaKind]

    @property
    def count(self) -> int:
        return sum(of_state.count for of_state in self.finished)

    @property
    def size_bytes(self) -> int:
        return sum(of_state.size_bytes for of_state in self.finished)


def _of_kind(kind: str, finished: list[StateTotals]) -> KindTotals:
    return KindTotals(
        kind=kind,
        count=sum(row.count for row in finished),
        size_bytes=sum(row.size_bytes for row in finished),
        in_telegram=sum(row.count for row in finished if row.state == AssetState.CACHED),
    )


def find_asset(asset_id: str) -> Asset | None:
    """The asset's record as it is now, or None."""
    return Asset.by_id(asset_id)


def find_best_asset(video_id: str, kind: str) -> Asset | None:
    """The video's (or its audio's) finished asset that was the best its source had when it was fetched, or None."""
    return Asset.objects(video_id=video_id, kind=kind, is_best=True, state__in=_FINISHED).first()  # type: ignore[no-any-return]


def find_finished_assets(video_id: str, kind: str) -> list[Asset]:
    """Everything finished of a video, or of its audio (at most 200)."""
    return list(Asset.objects(video_id=video_id, kind=kind, state__in=_FINISHED).limit(200))


def find_assets(asset_ids: Iterable[str]) -> dict[str, Asset]:
    """Several assets in one query, by id; those not on record are missing."""
    return {asset.id: asset for asset in Asset.objects(id__in=list(asset_ids))}


def titles_of(asset_ids: Iterable[str]) -> dict[str, str]:
    """The titles of several assets in one query, by id; those without one are missing."""
    found = Asset.objects(id__in=list(asset_ids)).only("title").no_dereference()
    return {asset.id: asset.title for asset in found if asset.title}


def list_assets(
    *, kind: str | None = None, state: str | None = None, after_id: str = "", limit: int = 100
) -> list[Asset]:
    """A page of assets in the order of their ids; ``after_id`` is the last id of the page before."""
    query: dict[str, Any] = {"id__gt": after_id}
    if kind:
        query["kind"] = kind
    if state:
        query["state"] = state
    return list(Asset.objects(**query).order_by("id").limit(min(limit, MAX_PAGE)))


def iterate_assets(**filters: Any) -> Iterator[Asset]:
    """Every asset that fits, page by page."""
    last_id = ""
    while page := list_assets(after_id=last_id, limit=MAX_PAGE, **filters):
        yield from page
        last_id = page[-1].id


def count_assets(*states: AssetState) -> int:
    """How many assets are in one of these states."""
    return int(Asset.objects(state__in=[state.value for state in states]).count())


def cache_totals(*, most_used: int = 10) -> CacheTotals:
    """Totals by kind and state, and the ``most_used`` assets. Not a transaction: a moment's picture.

    Of most assets only a key of an index is read; of those with orphans the record.
    """
    collection = Asset._get_collection()
    states = collection.aggregate(states_pipeline(), maxTimeMS=MAX_TIME_MS)
    orphans = next(iter(collection.aggregate(orphans_pipeline(), maxTimeMS=MAX_TIME_MS)), {"n": 0, "left": 0})
    rows = [StateTotals(**row["_id"], count=row["count"], size_bytes=row["size_bytes"]) for row in states]
    return CacheTotals(
        states=tuple(sorted(rows, key=lambda row: (row.state, row.kind))),
        most_used=tuple(_most_used(most_used)),
        orphans=orphans["n"],
        orphans_left=orphans["left"],
    )


def states_pipeline() -> list[dict[str, Any]]:
    """Assets by state and kind."""
    group = {
        "_id": {"state": "$state", "kind": "$kind"},
        "count": {"$sum": 1},
        "size_bytes": {"$sum": "$size_bytes"},
    }
    return [{"$match": {"state": {"$gte": ""}}}, {"$group": group}]  # all states; so that an index alone answers


def orphans_pipeline() -> list[dict[str, Any]]:
    """How many orphans there are, and how many nobody tries to remove any more. Each has one of these fields."""
    is_noted = [{f"orphans.{name}": {"$exists": True}} for name in ("noted_at", "message_id", "size")]
    given_up = {"$filter": {"input": "$orphans", "as": "one", "cond": {"$gt": ["$$one.gave_up_at", None]}}}
    group = {"_id": None, "n": {"$sum": {"$size": "$orphans"}}, "left": {"$sum": {"$size": given_up}}}
    return [{"$match": {"$or": is_noted}}, {"$group": group}]


def _most_used(limit: int) -> Iterator[UsedAsset]:
    shape = ("width", "height", "fps")
    fields = ("id", "video_id", "kind", "variant", "title", "size_bytes", "access_count", "last_accessed_at", *shape)
    for asset in Asset.objects(state__in=_FINISHED, access_count__gt=0).only(*fields).order_by("-access_count")[:limit]:
        yield UsedAsset(
            asset_id=asset.id,
            video_id=asset.video_id,
            kind=asset.kind,
            variant=asset.variant,
            title=asset.title,
            size_bytes=asset.size_bytes or 0,
            access_count=asset.access_count,
            last_accessed_at=asset.last_accessed_at,
            width=asset.width,
            height=asset.height,
            fps=asset.fps,
        )


def assets_in_state(asset_ids: Iterable[str]) -> dict[str, tuple[str, int]]:
    """State and generation by id, without the rest of the record: what eviction asks for many assets at once."""
    rows = Asset._get_collection().find({"_id": {"$in": list(asset_ids)}}, {"state": 1, "generation": 1})
    return {row["_id"]: (row["state"], row["generation"]) for row in rows}


def stored_parts(asset_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Where each asset's parts lie and which bots have a file_id of them; only assets whose every byte is stored."""
    part_fields = ("state", "size", "channel_id", "message_id", "file_ids")
    fields = {"size_bytes": 1, "generation": 1, "parts_generation": 1, **{f"parts.{name}": 1 for name in part_fields}}
    found = {}
    for row in Asset._get_collection().find({"_id": {"$in": list(asset_ids)}}, fields):
        parts = [part for part in row.get("parts", ()) if part.get("state") == PartState.STORED]
        whole = row.get("size_bytes") and sum(part["size"] for part in parts) == row["size_bytes"]
        if whole and row.get("parts_generation", 1) == row["generation"]:
            found[row["_id"]] = parts
    return found


def kept_generations(asset_ids: Iterable[str]) -> dict[str, tuple[str, set[int]]]:
    """State by id, and the generations that are needed: its own, and the one kept until that is stored.

    One query: a file is never judged by two moments.
    """
    fields = {"state": 1, "generation": 1, "previous.generation": 1}
    rows = Asset._get_collection().find({"_id": {"$in": list(asset_ids)}}, fields)
    return {
        row["_id"]: (row["state"], {row["generation"], (row.get("previous") or {}).get("generation")} - {None})
        for row in rows
    }


def stored_message_ids(channel_id: str, *, after: int, up_to: int) -> set[int]:
    """Message ids of that channel that belong to stored parts."""
    within = {"$gt": after, "$lte": up_to}
    match = {"parts": {"$elemMatch": {"channel_id": channel_id, "message_id": within}}}
    rows = Asset._get_collection().find(match, {"parts.channel_id": 1, "parts.message_id": 1, "parts.state": 1})
    return {
        part["message_id"]
        for row in rows
        for part in row["parts"]
        if part.get("channel_id") == channel_id and part.get("state") == PartState.STORED and part.get("message_id")
    }


def playable_message_ids(channel_id: str, *, after: int, up_to: int) -> set[int]:
    """Message ids of that channel that are playable copies on record."""
    match = {"playable.message_id": {"$gt": after, "$lte": up_to}, "playable.channel_id": channel_id}
    return {row["playable"]["message_id"] for row in Asset._get_collection().find(match, {"playable.message_id": 1})}


def least_recently_verified(limit: int) -> list[Asset]:
    """Assets in Telegram, those first whose last try to verify them is longest ago, whatever came of it."""
    found = Asset.objects(state=AssetState.CACHED.value).order_by("verify_tried_at", "id")
    return list(found.limit(min(limit, MAX_PAGE)))


def assets_to_refetch(limit: int) -> list[str]:
    """Ids of assets whose bytes nobody has any more, without those that could not be fetched a moment ago."""
    wanted = {"refetch_reason": {"$gt": ""}, "retry_at": {"$not": {"$gt": datetime.now(UTC)}}}
    rows = Asset._get_collection().find(wanted, {"_id": 1}).sort("retry_at", 1).limit(limit)
    return [row["_id"] for row in rows]


def playable_left(limit: int) -> list[str]:
    """Ids of assets whose playable copy was begun and is due for another look."""
    due = {"playable_until": {"$lte": datetime.now(UTC)}, "state": AssetState.CACHED.value, "message_link": None}
    rows = Asset._get_collection().find({**due, "playable_tries": {"$lt": MAX_PLAYABLE_TRIES}}, {"_id": 1}).limit(limit)
    return [row["_id"] for row in rows]


def waiting_uploads() -> tuple[int, datetime | None]:
    """How many unfinished uploads wait for their turn, and when the first of them goes on."""
    unfinished = [AssetState.READY.value, AssetState.UPLOADING.value]
    waiting = Asset.objects(upload_waits_for__gt="", state__in=unfinished)
    first = waiting.order_by("upload_retry_at").only("upload_retry_at").first()
    return waiting.count(), first.upload_retry_at if first else None


def uploads_given_up(limit: int = MAX_PAGE) -> list[Asset]:
    """Assets that nobody tries to store any more, without their parts."""
    return list(Asset.objects(upload_gave_up_at__exists=True).exclude("block_sha256", "parts").limit(limit))


def assets_out_of_reach(limit: int = MAX_PAGE) -> list[Asset]:
    """Assets that were asked for while the Bot API server that was set did not give their parts back."""
    return list(Asset.objects(out_of_reach_since__exists=True).only("id", "title", "video_id").limit(limit))


def assets_with_orphans(*, after_id: str = "", limit: int = MAX_PAGE) -> list[Asset]:
    """A page of assets, by id, that have orphans which can be removed (their message id is known, or can be found) and
    whose time has come.
    """
    removable = [{"orphans.message_id": {"$gt": 0}}, {"orphans.size": {"$gt": 0}}]
    due = {
        "$or": [{"message_id": {"$gt": 0}}, {"size": {"$gt": 0}}],
        "gave_up_at": None,
        "next_try_at": {"$not": {"$gt": datetime.now(UTC)}},
    }
    query = {"$or": removable, "orphans": {"$elemMatch": due}, "_id": {"$gt": after_id}}
    found = Asset.objects(__raw__=query)
    return list(found.only("id", "orphans").order_by("id").limit(min(limit, MAX_PAGE)))


def telegram_is_set_up() -> bool:
    """Whether there is a bot and a channel on record, in use or not."""
    return TelegramBot.objects.first() is not None and TelegramChannel.objects.first() is not None


def all_bots() -> list[TelegramBot]:
    """Every bot, in the order in which they were added."""
    return list(TelegramBot.objects.order_by("created_at", "bot_id"))


def parked_since(moment: datetime) -> bool:
    """Whether Telegram (not an operator) has stopped a bot since then: its token may be being replaced."""
    parked = {"state": BotState.DISABLED.value, "reason": {"$ne": DISABLED_BY_OPERATOR}, "updated_at": {"$gte": moment}}
    return TelegramBot._get_collection().find_one(parked, {"_id": 1}) is not None


def find_bot(bot_id: str) -> TelegramBot | None:
    return TelegramBot.objects(bot_id=bot_id).first()  # type: ignore[no-any-return]


def all_channels() -> list[TelegramChannel]:
    return list(TelegramChannel.objects.order_by("created_at", "channel_id"))


def find_channel(channel_id: str) -> TelegramChannel | None:
    return TelegramChannel.objects(channel_id=channel_id).first()  # type: ignore[no-any-return]
