"""What the care of stored media writes down: due uploads, bad parts, giving up, fetching anew. One update each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apps.telegram_cache.documents import Asset, AssetState, Part, PartState
from apps.telegram_cache.services.upload_records import NO_LONGER_FAILING, UPLOADABLE, assets, due

CLOCKS_APART = timedelta(hours=1)  # this process's and MongoDB's, at most


def give_up_upload(asset_id: str, *, failing_before: datetime, min_attempts: int, alert: str) -> bool:
    """Stop trying, if it has failed since before then and that often. True once: for whoever is to tell about it."""
    done = assets().update_one(
        {
            "_id": asset_id,
            "state": {"$in": UPLOADABLE},
            "upload_owner": None,
            "upload_gave_up_at": None,
            "upload_failing_since": {"$lte": failing_before},
            "upload_attempts": {"$gte": min_attempts},
        },
        {"$set": {"upload_gave_up_at": datetime.now(UTC), "alert": alert}, "$unset": {"upload_retry_at": ""}},
    )
    return bool(done.modified_count)


def want_refetch(asset: Asset, *, owner: str, reason: str) -> None:
    """The bytes of a part are neither in Telegram nor in the hot store: note that the asset is to be fetched anew."""
    assets().update_one(
        {"_id": asset.id, "upload_owner": owner, "generation": asset.generation},
        {"$set": {"refetch_reason": reason[:200]}},
    )


def forget_refetch(asset_id: str) -> None:
    """It was begun, or is not needed after all."""
    assets().update_one({"_id": asset_id}, {"$unset": {"refetch_reason": ""}})


def note_verified(asset_id: str, *, generation: int) -> None:
    assets().update_one({"_id": asset_id, "parts_generation": generation}, {"$set": {"verified_at": datetime.now(UTC)}})


def note_verify_tried(asset_id: str) -> None:
    """Others come first next time, whatever comes of this."""
    assets().update_one({"_id": asset_id}, {"$set": {"verify_tried_at": datetime.now(UTC)}})


def note_out_of_reach(asset_id: str) -> None:
    """Parts of it were asked for that this Bot API server does not give back. For an alert; nothing else changes."""
    unknown = {"_id": asset_id, "out_of_reach_since": None}
    assets().update_one(unknown, {"$set": {"out_of_reach_since": datetime.now(UTC)}})


def mark_part_bad(asset_id: str, *, generation: int, part: Part, reason: str) -> bool:
    """A stored part cannot be read back. The asset is to be uploaded again (if the bytes are still somewhere).

    Only the message that ``part`` was read with: one that was stored anew since then stays. False: nothing changed.
    """
    seen = {
        "index": part.index,
        "state": PartState.STORED.value,
        "message_id": part.message_id,
        "attempt_id": part.attempt_id,
    }
    done = assets().update_one(
        {
            "_id": asset_id,
            "parts_generation": generation,
            "state": {"$in": [AssetState.CACHED.value, *UPLOADABLE]},
            "parts": {"$elemMatch": seen},
        },
        {
            "$set": {
                "parts.$.state": PartState.BAD.value,
                "parts.$.bad_reason": reason,
                "state": AssetState.READY.value,
                "updated_at": datetime.now(UTC),
            }
        },
    )
    return bool(done.modified_count)


def mark_part_well(asset_id: str, *, generation: int, part: Part) -> bool:
    """A part that was called bad gives the right bytes again. Only the message that ``part`` was read with."""
    seen = {"index": part.index, "state": PartState.BAD.value, "message_id": part.message_id}
    done = assets().update_one(
        {"_id": asset_id, "parts_generation": generation, "parts": {"$elemMatch": seen}},
        {"$set": {"parts.$.state": PartState.STORED.value}, "$unset": {"parts.$.bad_reason": ""}},
    )
    return bool(done.modified_count)


def mark_all_parts_bad(asset: Asset, *, reason: str) -> bool:
    """Have every stored part sent again. One conditional update on the generation that ``asset`` was read with."""
    done = assets().update_one(
        {
            "_id": asset.id,
            "generation": asset.generation,
            "parts_generation": asset.parts_generation,
            "upload_owner": None,
            "state": AssetState.CACHED.value,
        },
        {
            "$set": {
                "parts.$[stored].state": PartState.BAD.value,
                "parts.$[stored].bad_reason": reason,
                "state": AssetState.READY.value,
                "updated_at": datetime.now(UTC),
            },
            "$unset": {"verified_at": ""},
        },
        array_filters=[{"stored.state": PartState.STORED.value}],
    )
    return bool(done.modified_count)


def make_due(asset_id: str) -> bool:
    """Forget the delay and the failed tries of an unfinished upload. False: there is none."""
    done = assets().update_one(
        {"_id": asset_id, "state": {"$in": UPLOADABLE}},
        {
            "$set": {"upload_attempts": 0},
            "$unset": {"upload_retry_at": "", "upload_queued_at": "", **NO_LONGER_FAILING},
        },
    )
    return bool(done.matched_count)


def queue_next_upload(*, again_after_s: float) -> str | None:
    """Mark one asset that is due as queued, so that no other caller gets it, and give its id; None: none is due."""
    now = datetime.now(UTC)
    queued_before = now - timedelta(seconds=again_after_s)
    found = assets().find_one_and_update(
        {
            "state": {"$in": UPLOADABLE},
            "upload_gave_up_at": None,
            "upload_retry_at": {"$not": {"$gt": now + CLOCKS_APART}},  # an index ends there; $$NOW decides
            "$or": [{"upload_queued_at": None}, {"upload_queued_at": {"$lt": queued_before}}],
            "$expr": {"$and": [due("upload_lease_until"), due("upload_retry_at")]},
        },
        {"$set": {"upload_queued_at": now}},
        sort=[("upload_retry_at", 1)],
        projection={"_id": 1},
    )
    return str(found["_id"]) if found else None


def mark_queued(asset_id: str) -> None:
    assets().update_one({"_id": asset_id}, {"$set": {"upload_queued_at": datetime.now(UTC)}})


def forget_queued(asset_id: str) -> None:
    """Its task came to nothing: the sweep need not wait for it."""
    assets().update_one({"_id": asset_id}, {"$unset": {"upload_queued_at": ""}})
