"""What an upload writes down: every function is one conditional update, so that any number of workers may race.

Two things fence: ``upload_owner`` (only the holder of the lease starts attempts) and a part's ``attempt_id`` (only the
attempt that is on record can be committed, whoever holds the lease by then: a stored part is never sent again).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.core.owners import is_owner_dead
from apps.telegram_cache.clients.answers import StoredMessage
from apps.telegram_cache.documents import Asset, AssetState, Part, PartState, TelegramChannel
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services.orphan_records import MAX_ORPHANS, UNANSWERED, leftovers_of, orphan_of
from apps.telegram_cache.services.planning import Stretch

UPLOAD_LEASE_S = 60.0
MAX_HELD = 500  # uploads that run at once; far fewer have a thread
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
DIED = "the process that sent it ended without a word (killed, or crashed)"
DEATHS_IN_A_ROW = 2  # after which the next run begins at once; then the wait doubles each time
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 3600.0
NO_LONGER_FAILING = {
    "upload_failing_since": "",
    "upload_gave_up_at": "",
    "upload_deaths": "",
    "alert": "",
    "refetch_reason": "",
}
_ENDED = ("upload_owner", "upload_lease_until", "upload_queued_at")
_IS_OPEN = {"state": {"$in": list(UNANSWERED)}}
UPLOADABLE = [AssetState.READY.value, AssetState.UPLOADING.value]


def assets() -> Any:
    return Asset._get_collection()


def due(field: str) -> dict[str, Any]:
    return {"$lte": [{"$ifNull": [f"${field}", _LONG_AGO]}, "$$NOW"]}


def claim_upload(asset_id: str, *, owner: str) -> Asset | None:
    """Become the one uploader of an asset that is due. None: not due, somebody else's, or nothing to upload.

    Whoever let a lease run out has died.
    """
    run_out = {"upload_owner": {"$ne": None}, "$expr": due("upload_lease_until")}
    _note_death({"_id": asset_id, "state": AssetState.UPLOADING.value, **run_out})
    done = assets().update_one(
        {
            "_id": asset_id,
            "state": {"$in": UPLOADABLE},
            "upload_gave_up_at": None,
            "$expr": {"$and": [due("upload_lease_until"), due("upload_retry_at")]},
        },
        [
            {
                "$set": {
                    "upload_owner": owner,
                    "upload_lease_until": {"$add": ["$$NOW", int(UPLOAD_LEASE_S * 1000)]},
                    "state": AssetState.UPLOADING.value,
                    "updated_at": "$$NOW",
                }
            },
            # should this worker die, the sweep need not wait for it
            {"$unset": ["upload_queued_at", "upload_waits_for"]},
        ],
    )
    return find_asset(asset_id) if done.modified_count else None


def renew_upload(asset_id: str, *, owner: str) -> bool:
    """Whether the lease is still ours; then it runs for another 60 s."""
    done = assets().update_one(
        {"_id": asset_id, "upload_owner": owner},
        [{"$set": {"upload_lease_until": {"$add": ["$$NOW", int(UPLOAD_LEASE_S * 1000)]}}}],
    )
    return bool(done.matched_count)


def free_dead_uploads() -> int:
    """End the leases of processes that are known to be dead. Returns how many.

    Safe beside anybody: a dead owner sends nothing, and whoever has claimed the asset meanwhile keeps it.
    """
    held = {"upload_owner": {"$gt": ""}, "state": AssetState.UPLOADING.value}
    rows = list(assets().find(held, {"upload_owner": 1}).limit(MAX_HELD))
    return sum(
        _note_death({"_id": row["_id"], "upload_owner": row["upload_owner"]})
        for row in rows
        if is_owner_dead(row["upload_owner"])
    )


def _note_death(held: dict[str, Any]) -> int:
    """End a lease whose holder died, as a failed try. The upload is due at once, or later after several deaths in a
    row: one that kills its worker each time must not do that for ever.
    """
    tries, deaths = ({"$add": [{"$ifNull": [f"${name}", 0]}, 1]} for name in ("upload_attempts", "upload_deaths"))
    grown_ms = {"$multiply": [FIRST_RETRY_S * 1000, {"$pow": [2, {"$min": [deaths, 12]}]}]}
    wait_ms = {"$cond": [{"$lte": [deaths, DEATHS_IN_A_ROW]}, 0, {"$min": [LONGEST_RETRY_S * 1000, grown_ms]}]}
    died = {
        "upload_attempts": tries,
        "upload_deaths": deaths,
        "upload_error": DIED,
        "upload_failing_since": {"$ifNull": ["$upload_failing_since", "$$NOW"]},
        "upload_retry_at": {"$add": ["$$NOW", wait_ms]},
    }
    return int(assets().update_one(held, [{"$set": died}, {"$unset": [*_ENDED, "upload_waits_for"]}]).modified_count)


def release_upload(asset_id: str, *, owner: str, error: str, retry_s: float, counts: bool) -> None:
    """Give the lease back; the sweep starts it again in ``retry_s``.

    ``counts``: a failed try, so the delay grows. Else ``error`` is what it waits for, and nothing has failed.
    """
    now = datetime.now(UTC)
    said, other = ("upload_error", "upload_waits_for") if counts else ("upload_waits_for", "upload_error")
    assets().update_one(
        {"_id": asset_id, "upload_owner": owner},
        {
            "$set": {said: error, "upload_retry_at": now + timedelta(seconds=retry_s), "updated_at": now},
            "$inc": {"upload_attempts": int(counts)},
            "$unset": dict.fromkeys((*_ENDED, "upload_deaths", other), ""),
        },
    )
    if counts:
        assets().update_one(
            {"_id": asset_id, "upload_failing_since": None, "upload_error": error},
            {"$set": {"upload_failing_since": now}},
        )


def finish_upload(asset: Asset, *, owner: str) -> bool:
    """``cached``, if every part is stored and they cover the asset. Only then the generation before it goes: its
    messages become orphans with that.
    """
    previous = asset.previous
    stored = {"$eq": ["$$part.state", PartState.STORED.value]}
    covered = {"$sum": {"$map": {"input": "$parts", "as": "part", "in": {"$cond": [stored, "$$part.size", 0]}}}}
    done = assets().update_one(
        {
            "_id": asset.id,
            "upload_owner": owner,
            "generation": asset.generation,
            "parts_generation": asset.generation,
            "previous.generation": previous.generation if previous else None,
            "state": AssetState.UPLOADING.value,
            "$expr": {"$eq": [covered, "$size_bytes"]},
        },
        {
            "$set": {"state": AssetState.CACHED.value, "upload_attempts": 0, "updated_at": datetime.now(UTC)},
            "$push": {"orphans": {"$each": leftovers_of(previous), "$slice": -MAX_ORPHANS}},
            "$unset": {
                "previous": "",
                "upload_owner": "",
                "upload_lease_until": "",
                "upload_queued_at": "",
                "upload_error": "",
                "upload_retry_at": "",
                **NO_LONGER_FAILING,
            },
        },
    )
    return bool(done.modified_count)


def save_plan(asset: Asset, *, owner: str, stretches: Sequence[Stretch], kept: Sequence[Part] = ()) -> Asset | None:
    """Replace the parts by a fresh plan, in which those of ``kept`` have their stretch and only get a new index.

    Messages of parts that are dropped become orphans. None: the lease is lost, or a kept part is not as it was seen.
    """
    stay = {part.offset: part.to_mongo().to_dict() for part in kept}
    parts = [
        stay.get(stretch.offset, {"size": stretch.size, "state": PartState.PLANNED.value})
        | {"index": index, "offset": stretch.offset}
        for index, stretch in enumerate(stretches)
    ]
    leftovers = [
        orphan_of(part, message_id=part.message_id, reason="of an older plan")
        for part in asset.parts
        if part.offset not in stay and (part.message_id is not None or part.state in UNANSWERED)
    ]
    seen: list[dict[str, Any]] = [
        {"parts": {"$elemMatch": {"index": part.index, "state": part.state, "message_id": part.message_id}}}
        for part in kept
    ]
    update: dict[str, Any] = {"$set": {"parts": parts, "parts_generation": asset.generation}}
    if leftovers:
        update["$push"] = {"orphans": {"$each": leftovers, "$slice": -MAX_ORPHANS}}
    known = {"_id": asset.id, "upload_owner": owner, "generation": asset.generation, **({"$and": seen} if seen else {})}
    done = assets().update_one(known, update)
    return find_asset(asset.id) if done.matched_count else None


def begin_attempt(
    asset: Asset, part: Part, *, owner: str, attempt_id: str, bot_id: str, channel_id: str, sha256: str
) -> bool:
    """Write down what is about to be sent, if the part is still as it was seen. False: the lease is lost.

    The message of a bad part becomes an orphan with that, and so does what an earlier attempt without an answer may
    still have stored, or be storing.
    """
    channel = TelegramChannel._get_collection().find_one({"_id": channel_id}, {"last_message_id": 1}) or {}
    fields = {
        "state": PartState.SENDING.value,
        "attempt_id": attempt_id,
        "bot_id": bot_id,
        "channel_id": channel_id,
        "sha256": sha256,
        "after_message_id": channel.get("last_message_id", 0),
    }
    update: dict[str, Any] = {"$set": {f"parts.$.{name}": value for name, value in fields.items()}}
    if part.state in UNANSWERED:
        late = orphan_of(part, message_id=None, reason="sent without an answer, and sent again")
        update["$push"] = {"orphans": {"$each": [late], "$slice": -MAX_ORPHANS}}
    if part.state == PartState.BAD:
        bad = orphan_of(part, message_id=part.message_id, reason="bad")
        update["$push"] = {"orphans": {"$each": [bad], "$slice": -MAX_ORPHANS}}
        update["$unset"] = {"parts.$.message_id": "", "parts.$.file_unique_id": "", "parts.$.file_ids": ""}
    seen = {"index": part.index, "state": part.state, "attempt_id": part.attempt_id}
    done = assets().update_one(
        {
            "_id": asset.id,
            "upload_owner": owner,
            "parts_generation": asset.parts_generation,
            "parts": {"$elemMatch": seen},
        },
        update,
    )
    return bool(done.modified_count)


def commit_part(
    asset: Asset, *, index: int, attempt_id: str, bot_id: str, channel_id: str, message: StoredMessage
) -> bool:
    """Record a stored part. True also when a rival that found this very message has recorded it meanwhile.

    False: another attempt is on record.
    """
    fields = {
        "state": PartState.STORED.value,
        "channel_id": message.chat_id or channel_id,
        "message_id": message.message_id,
        "file_unique_id": message.file_unique_id,
        f"file_ids.{bot_id}": message.file_id,
    }
    done = assets().update_one(
        _attempt(asset, index, attempt_id, open_or_stored_as(message, channel_id)),
        {
            "$set": {**{f"parts.$.{name}": value for name, value in fields.items()}, "upload_attempts": 0},
            "$unset": {
                "parts.$.bot_id": "",
                "parts.$.after_message_id": "",
                "parts.$.bad_reason": "",
                **NO_LONGER_FAILING,
            },
        },
    )
    note_message_id(channel_id, message.message_id)
    return bool(done.matched_count)


def open_or_stored_as(message: StoredMessage, channel_id: str, *, prefix: str = "") -> dict[str, Any]:
    """Matches an attempt that nobody has recorded an end of, or that is recorded with this very message."""
    place = {f"{prefix}channel_id": {"$in": [channel_id, message.chat_id]}, f"{prefix}message_id": message.message_id}
    is_open = {f"{prefix}state": {"$in": list(UNANSWERED)}}
    return {"$or": [is_open, {f"{prefix}state": PartState.STORED.value, **place}]}


def is_recorded(asset_id: str, *, channel_id: str, message_id: int) -> bool:
    """Whether the asset's record names that message: as a part or the playable copy, also of the generation before."""
    place = {"channel_id": channel_id, "message_id": message_id}
    lists = [{name: {"$elemMatch": place}} for name in ("parts", "previous.parts")]
    single = [
        {f"{name}.{field}": value for field, value in place.items()} for name in ("playable", "previous.playable")
    ]
    return assets().find_one({"_id": asset_id, "$or": [*lists, *single]}, {"_id": 1}) is not None


def set_attempt_state(asset: Asset, *, index: int, attempt_id: str, state: PartState) -> None:
    """After a failed send: PLANNED (certainly not stored) or UNKNOWN."""
    assets().update_one(
        _attempt(asset, index, attempt_id, _IS_OPEN),
        {"$set": {"parts.$.state": state.value}},
    )


def _attempt(asset: Asset, index: int, attempt_id: str, also: dict[str, Any]) -> dict[str, Any]:
    return {
        "_id": asset.id,
        "parts_generation": asset.parts_generation,
        "parts": {"$elemMatch": {"index": index, "attempt_id": attempt_id, **also}},
    }


def note_seen(asset: Asset, part: Part, message_id: int) -> None:
    """The message of the part's attempt is not among those up to ``message_id``: the next search begins after it."""
    assets().update_one(
        _attempt(asset, part.index, part.attempt_id or "", _IS_OPEN),
        {"$max": {"parts.$.after_message_id": message_id}},
    )


def note_message_id(channel_id: str, message_id: int) -> None:
    """The newest message id seen in a channel: where a later search for an unknown part begins."""
    TelegramChannel._get_collection().update_one({"_id": channel_id}, {"$max": {"last_message_id": message_id}})


def set_file_id(asset_id: str, *, index: int, file_unique_id: str, bot_id: str, file_id: str) -> None:
    """A bot's own file_id of a part, if the part is still that file."""
    assets().update_one(
        {"_id": asset_id, "parts": {"$elemMatch": {"index": index, "file_unique_id": file_unique_id}}},
        {"$set": {f"parts.$.file_ids.{bot_id}": file_id}},
    )
