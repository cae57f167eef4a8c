"""What becomes of a stored asset that is fetched anew: nothing of it goes before the new bytes are stored as well."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apps.core.clock import utcnow
from apps.telegram_cache.documents import FINISHED_STATES, Asset, AssetState, Generation, PartState
from apps.telegram_cache.services.orphan_records import MAX_ORPHANS, OF_AN_OLDER_GENERATION, UNANSWERED, orphans_in
from apps.telegram_cache.services.upload_records import assets

CANCELLED = "a part in Telegram is bad, and fetching it anew was cancelled"
_KEPT = tuple(name for name in Generation._fields if name != "state")
_FINISHED = [state.value for state in FINISHED_STATES]
_FORGOTTEN = (
    "provider",
    "size_bytes",
    "sha256",
    "block_sha256",
    "upload_owner",
    "upload_lease_until",
    "message_link",
    "upload_failing_since",
    "upload_deaths",
    "upload_gave_up_at",
    "upload_retry_at",
    "upload_waits_for",
    "alert",
    "refetch_reason",
    "out_of_reach_since",
    "verified_at",
    "playable",
    "playable_tries",
    "playable_until",
    "error_code",
    "error_message",
    "retry_at",
)


def start_generation(asset: Asset, *, is_hot: bool) -> bool:
    """Make a finished asset ``queued`` under its next generation. One conditional update: of many callers one does it.

    What it is now is kept as ``previous``, if anything is stored (``is_hot``: the whole file is in the hot store). One
    that is kept already stays, and the messages of the one in between become orphans, those that may exist too.
    """
    state = {"$cond": [{"$eq": ["$state", AssetState.CACHED.value]}, "$state", AssetState.READY.value]}
    current = {name: {"$ifNull": [f"${name}", None]} for name in _KEPT} | {"state": state}
    has_message = {"$gt": [{"$ifNull": ["$$part.message_id", 0]}, 0]}
    messages = {"$filter": {"input": {"$ifNull": ["$parts", []]}, "as": "part", "cond": has_message}}
    is_stored = {"$or": [{"$gt": [{"$size": messages}, 0]}, is_hot]}
    kept = {"$ifNull": ["$previous", {"$cond": [is_stored, current, None]}]}
    playable = {"$cond": [{"$ifNull": ["$playable", False]}, ["$playable"], []]}
    may_exist = {"$or": [has_message, {"$in": ["$$part.state", list(UNANSWERED)]}]}
    every_part = {"$concatArrays": [{"$ifNull": ["$parts", []]}, playable]}
    leftovers = orphans_in({"$filter": {"input": every_part, "as": "part", "cond": may_exist}}, OF_AN_OLDER_GENERATION)
    is_dropped = {"$or": [{"$ifNull": ["$previous", False]}, {"$not": [is_stored]}]}
    between = {"$cond": [is_dropped, leftovers, []]}
    orphans = {"$slice": [{"$concatArrays": [{"$ifNull": ["$orphans", []]}, between]}, -MAX_ORPHANS]}
    newest = {"$max": ["$generation", {"$ifNull": ["$tried_generation", 0]}]}
    done = assets().update_one(
        {"_id": asset.id, "attempt": asset.attempt, "generation": asset.generation, "state": {"$in": _FINISHED}},
        [
            {"$set": {"orphans": orphans, "previous": kept, "generation": {"$add": [newest, 1]}}},
            {"$set": {"state": AssetState.QUEUED.value, "parts": [], "upload_attempts": 0, "updated_at": "$$NOW"}},
            {"$unset": list(_FORGOTTEN)},
        ],
    )
    return bool(done.modified_count)


def given_up(
    fields: dict[str, Any], *, alert: str = "", upload_retry_at: datetime | None = None
) -> list[dict[str, Any]]:
    """The stages of an update that ends a fetch without bytes: they set ``fields``, or make the asset what it was.

    With ``alert`` the upload of what it was is given up too, so that nobody fetches it again and again until `cache
    repair`; else it is due at ``upload_retry_at``. One that was in Telegram in full needs neither.
    """
    put_off = {"upload_gave_up_at": utcnow(), "alert": alert} if alert else {"upload_retry_at": upload_retry_at}
    is_whole = {"$eq": ["$previous.state", AssetState.CACHED.value]}
    waits: dict[str, Any] = {"$cond": [is_whole, {}, {"$literal": put_off}]}
    before = {"$mergeObjects": ["$previous", {"tried_generation": "$generation"}, waits]}
    return [
        {"$set": {name: {"$literal": value} for name, value in fields.items()}},
        {"$replaceWith": {"$mergeObjects": ["$$ROOT", {"$cond": [{"$ifNull": ["$previous", False]}, before, {}]}]}},
        {"$unset": ["lease_owner", "lease_until", "previous"]},
    ]


def cancel_queued(asset_id: str) -> None:
    """A fetch that has not begun was cancelled."""
    waiting = {"_id": asset_id, "state": AssetState.QUEUED.value}
    assets().update_one(waiting, given_up({"state": AssetState.ABSENT.value}, alert=CANCELLED))


def is_left_in_part(asset: Asset) -> bool:
    """Whether an asset with bad parts could not be had anew a while ago: what is left of it may be read till then."""
    is_early = asset.retry_at is not None and asset.retry_at > utcnow()
    stored = any(part.state == PartState.STORED for part in asset.parts)
    return bool(is_early and asset.is_finished and stored and asset.parts_generation == asset.generation)
