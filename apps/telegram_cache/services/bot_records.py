"""Writes to bots and channels, each one update; this process sees them at once, the others within a second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog

from apps.core.errors import NotFound
from apps.telegram_cache.documents import BotState, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.selectors import find_bot, find_channel

log = structlog.get_logger(__name__)


def set_bot(
    bot_id: str, *, set_: dict[str, Any] | None = None, unset: tuple[str, ...] = (), upsert: bool = False
) -> None:
    """``unset`` takes fields away; ``upsert`` makes the bot when it is not there."""
    now = datetime.now(UTC)
    update: dict[str, Any] = {"$set": {**(set_ or {}), "updated_at": now}}
    if unset:
        update["$unset"] = dict.fromkeys(unset, "")
    if upsert:
        update["$setOnInsert"] = {"created_at": now}
    TelegramBot._get_collection().update_one({"_id": bot_id}, update, upsert=upsert)
    forget_roster()


def park_bot(bot_id: str, *, token_encrypted: str, reason: str) -> bool:
    """Stop using a bot whose token Telegram refuses, unless it has got another token since. One conditional update."""
    done = TelegramBot._get_collection().update_one(
        {"_id": bot_id, "token_encrypted": token_encrypted},
        {"$set": {"state": BotState.DISABLED.value, "reason": reason, "updated_at": datetime.now(UTC)}},
    )
    forget_roster()
    if done.matched_count:
        log.error("telegram_bot_parked", bot_id=bot_id, reason=reason)
    return bool(done.matched_count)


def set_channel(channel_id: str, fields: dict[str, Any]) -> None:
    fields = {**fields, "updated_at": datetime.now(UTC)}
    TelegramChannel._get_collection().update_one({"_id": channel_id}, {"$set": fields})
    forget_roster()


def known_bot(bot_id: str) -> TelegramBot:
    """Raises NotFound."""
    bot = find_bot(bot_id)
    if bot is None:
        raise NotFound("There is no bot with this id.")
    return bot


def known_channel(channel_id: str) -> TelegramChannel:
    """Raises NotFound."""
    channel = find_channel(channel_id)
    if channel is None:
        raise NotFound("There is no channel with this id.")
    return channel
