"""What posting a playable copy writes down: one conditional update each, fenced like the parts of an upload."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from apps.telegram_cache.clients.answers import StoredMessage
from apps.telegram_cache.documents import Asset, AssetState, Part, PartState, TelegramChannel
from apps.telegram_cache.selectors import MAX_PLAYABLE_TRIES, find_asset
from apps.telegram_cache.services.orphan_records import MAX_ORPHANS, UNANSWERED, orphan_of
from apps.telegram_cache.services.upload_records import assets, note_message_id, open_or_stored_as

PLAYABLE_INDEX = 1_000_000  # in captions and orphans: no part has this number
CLAIM_S = 900.0  # longer than sending 50 MB may take


def claim_playable(asset_id: str, *, max_bytes: int) -> Asset | None:
    """Become the one who posts it, or finds out whether it was posted. None: nothing to do, or somebody else is."""
    now = datetime.now(UTC)
    done = assets().update_one(
        {
            "_id": asset_id,
            "state": AssetState.CACHED.value,
            "size_bytes": {"$lte": max_bytes},
            "message_link": None,
            "playable.state": {"$ne": PartState.STORED.value},
            "playable_tries": {"$not": {"$gte": MAX_PLAYABLE_TRIES}},
            "$or": [{"playable_until": None}, {"playable_until": {"$lte": now}}],
        },
        {"$set": {"playable_until": now + timedelta(seconds=CLAIM_S)}, "$inc": {"playable_tries": 1}},
    )
    return find_asset(asset_id) if done.modified_count else None


def release_playable(asset_id: str, *, wait_s: float, counts: bool) -> None:
    """Have it tried again in ``wait_s``. ``counts``: this try was a failure."""
    until = datetime.now(UTC) + timedelta(seconds=wait_s)
    change = {"$set": {"playable_until": until}, "$inc": {"playable_tries": 0 if counts else -1}}
    assets().update_one({"_id": asset_id, "playable_until": {"$ne": None}}, change)


def begin_playable(asset: Asset, *, bot_id: str, channel_id: str, attempt_id: str) -> Part | None:
    """Write the attempt down before anything is sent. None: somebody else wrote one.

    What an earlier attempt without an answer may still have stored becomes an orphan with that.
    """
    channel = TelegramChannel._get_collection().find_one({"_id": channel_id}, {"last_message_id": 1}) or {}
    part = Part(
        index=PLAYABLE_INDEX, offset=0, size=asset.size_bytes, sha256=asset.sha256, channel_id=channel_id,
        state=PartState.SENDING.value, attempt_id=attempt_id, bot_id=bot_id,
        after_message_id=channel.get("last_message_id", 0),
    )  # fmt: skip
    before = (asset.playable.attempt_id, asset.playable.state) if asset.playable else (None, None)
    change: dict[str, Any] = {"$set": {"playable": part.to_mongo()}}
    if asset.playable and asset.playable.state in UNANSWERED:
        late = orphan_of(asset.playable, message_id=None, reason="sent without an answer, and sent again")
        change["$push"] = {"orphans": {"$each": [late], "$slice": -MAX_ORPHANS}}
    done = assets().update_one(
        {
            "_id": asset.id,
            "generation": asset.generation,
            "playable.attempt_id": before[0],
            "playable.state": before[1],
        },
        change,
    )
    return part if done.modified_count else None


def note_seen(asset: Asset, part: Part, message_id: int) -> None:
    """The message of that attempt is not among those up to ``message_id``: the next search begins after it."""
    still_open = {"playable.attempt_id": part.attempt_id, "playable.state": {"$in": list(UNANSWERED)}}
    assets().update_one({"_id": asset.id, **still_open}, {"$max": {"playable.after_message_id": message_id}})


def commit_playable(asset: Asset, part: Part, message: StoredMessage, *, link: str) -> bool:
    """Record the message. True also when a rival that found this very message has recorded it meanwhile.

    False: another attempt is on record.
    """
    done = assets().update_one(
        {
            "_id": asset.id,
            "generation": asset.generation,
            "playable.attempt_id": part.attempt_id,
            **open_or_stored_as(message, part.channel_id or "", prefix="playable."),
        },
        {
            "$set": {
                "playable.state": PartState.STORED.value,
                "playable.message_id": message.message_id,
                "playable.file_unique_id": message.file_unique_id,
                "message_link": link,
            },
            "$unset": {"playable_until": ""},
        },
    )
    note_message_id(part.channel_id or "", message.message_id)
    return bool(done.matched_count)


def forget_playable(asset: Asset, part: Part) -> None:
    """The attempt certainly stored nothing. A copy that is on record stays there, with its link."""
    still_open = {"playable.attempt_id": part.attempt_id, "playable.state": {"$in": list(UNANSWERED)}}
    assets().update_one({"_id": asset.id, **still_open}, {"$unset": {"playable": ""}})
