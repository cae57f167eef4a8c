"""The list of messages that no part needs, on the record of the asset that they were sent for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apps.telegram_cache.documents import Asset, Generation, Part, PartState

MAX_ORPHANS = 5000
OF_AN_OLDER_GENERATION = "of an older generation"
UNANSWERED = (PartState.SENDING.value, PartState.UNKNOWN.value)


def add_orphan(asset_id: str, part: Part, *, message_id: int | None, reason: str, channel_id: str = "") -> None:
    """Note a message that no part needs. ``message_id`` None: it may exist, nobody can tell.

    ``channel_id``: where it is, if that is not the part's own channel.
    """
    orphan = orphan_of(part, message_id=message_id, reason=reason)
    if channel_id:
        orphan["channel_id"] = channel_id
    change = {"$push": {"orphans": {"$each": [orphan], "$slice": -MAX_ORPHANS}}}
    Asset._get_collection().update_one({"_id": asset_id}, change)


def add_lost_message(asset_id: str, part: Part, *, channel_id: str, reason: str) -> None:
    """Note a message that was asked for without an answer: it may exist, and nothing tells it from others.

    So nobody looks for it; it is only counted.
    """
    lost = {
        "index": part.index,
        "attempt_id": "",
        "channel_id": channel_id,
        "message_id": None,
        "reason": f"{reason}, without an answer",
        "noted_at": datetime.now(UTC),
    }
    change = {"$push": {"orphans": {"$each": [lost], "$slice": -MAX_ORPHANS}}}
    Asset._get_collection().update_one({"_id": asset_id}, change)


def orphan_of(part: Part, *, message_id: int | None, reason: str) -> dict[str, Any]:
    """With ``message_id`` None it carries what it takes to look for the message later."""
    orphan = {
        "index": part.index,
        "attempt_id": part.attempt_id or "",
        "channel_id": part.channel_id or "",
        "message_id": message_id,
        "reason": reason,
        "noted_at": datetime.now(UTC),
    }
    if message_id is None:
        orphan |= {"after_message_id": part.after_message_id, "sha256": part.sha256, "size": part.size}
    return orphan


def orphans_in(messages: Any, reason: str) -> dict[str, Any]:
    """An aggregation expression: orphans for the parts that the expression ``messages`` gives. See ``orphan_of``."""
    fields = {name: f"$$message.{name}" for name in ("index", "attempt_id", "channel_id")}
    known = {**fields, "message_id": "$$message.message_id", "reason": reason, "noted_at": "$$NOW"}
    to_look = {name: f"$$message.{name}" for name in ("after_message_id", "sha256", "size")} | {"message_id": None}
    has_message = {"$gt": ["$$message.message_id", 0]}
    orphan = {"$mergeObjects": [known, {"$cond": [has_message, {}, to_look]}]}
    return {"$map": {"input": messages, "as": "message", "in": orphan}}


def leftovers_of(previous: Generation | None) -> list[dict[str, Any]]:
    """Orphans for every message of a generation that may exist."""
    if previous is None:
        return []
    playable: list[Part] = [previous.playable] if previous.playable else []
    return [
        orphan_of(part, message_id=part.message_id, reason=OF_AN_OLDER_GENERATION)
        for part in (*previous.parts, *playable)
        if part.message_id is not None or part.state in UNANSWERED
    ]
