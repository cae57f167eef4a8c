"""Writes to bots and channels, each one update; this process sees them at once, the others within a second."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from apps.core.conditional import still
from apps.core.errors import NotFound
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, BotState, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import forget_roster, roster
from apps.telegram_cache.selectors import find_bot, find_channel

log = structlog.get_logger(__name__)
_NOT_STOPPED = {"reason": {"$ne": DISABLED_BY_OPERATOR}}


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
    """Stop using a bot whose token Telegram refuses, unless it has got another token since, or an operator has stopped
    it: that stays. One conditional update.
    """
    done = TelegramBot._get_collection().update_one(
        {"_id": bot_id, "token_encrypted": token_encrypted, **_NOT_STOPPED},
        {"$set": {"state": BotState.DISABLED.value, "reason": reason, "updated_at": datetime.now(UTC)}},
    )
    forget_roster()
    if done.matched_count:
        log.error("telegram_bot_parked", bot_id=bot_id, reason=reason)
    return bool(done.matched_count)


def revive_bot(bot_id: str, *, token_encrypted: str) -> bool:
    """Use a bot again that Telegram had refused, unless it has got another token since, or an operator has stopped it.
    One conditional update.
    """
    done = TelegramBot._get_collection().update_one(
        {"_id": bot_id, "token_encrypted": token_encrypted, "state": BotState.DISABLED.value, **_NOT_STOPPED},
        {"$set": {"state": BotState.ACTIVE.value, "reason": "", "updated_at": datetime.now(UTC)}},
    )
    forget_roster()
    return bool(done.matched_count)


def bar_bot(bot_id: str, channel_id: str, *, reason: str) -> None:
    """Note that a bot cannot post in a chat. When no usable bot can, and it is a channel of ours, that is an alert."""
    set_bot(bot_id, set_={f"barred.{channel_id}": reason})
    log.error("telegram_bot_barred", bot_id=bot_id, channel_id=channel_id, reason=reason)
    if all(channel_id in bot.barred for bot in roster().bots):
        set_channel(channel_id, {"alert": reason})
        log.error("telegram_channel_parked", channel_id=channel_id, reason=reason)


def set_channel(channel_id: str, fields: dict[str, Any], *, seen: Mapping[str, Any] | None = None) -> bool:
    """``seen``: only where these fields are still those values. Returns whether there was such a channel."""
    fields = {**fields, "updated_at": datetime.now(UTC)}
    defaults = TelegramChannel()
    as_seen = still(seen, defaults={name: getattr(defaults, name) for name in seen or ()})
    result = TelegramChannel._get_collection().update_one({"_id": channel_id, **as_seen}, {"$set": fields})
    forget_roster()
    return bool(result.matched_count)


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
