"""Channels: add, choose the one for new parts, disable. Changes reach every process within a second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from pymongo.errors import DuplicateKeyError

from apps.core.conditional import CHANGED_MEANWHILE
from apps.core.errors import Conflict, InvalidParameter
from apps.telegram_cache.clients.answers import Chat
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, BotState, TelegramChannel
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.selectors import all_bots
from apps.telegram_cache.services.bot_records import known_channel, set_channel
from apps.telegram_cache.services.checks import Finding, look_up, note_rights

log = structlog.get_logger(__name__)
MAX_CHANNEL_CHARACTERS = 200
MAX_MESSAGES_PER_MIN = 1800  # about 30 a second, the most that Telegram gives one bot over all chats
CHANNEL_PATTERN = re.compile(r"-?\d{1,20}|@[A-Za-z][A-Za-z0-9_]{3,}", re.ASCII)
# Bot API: -100 and the number in links to a private channel's messages are its id; links of a public one have its name
LINK_PATTERN = re.compile(
    r"(?:https://)?t\.me/(?:c/(?P<number>\d{1,17})|(?P<name>[A-Za-z][A-Za-z0-9_]{3,}))(?:/\d*)?(?:\?.*)?", re.ASCII
)
HOW_TO_NAME = "Give its id, such as -1001234567890, its @name, or the link of one of its messages."


def add_channel(channel: str, *, make_default: bool = True) -> tuple[TelegramChannel, list[Finding]]:
    """Look the channel up with the bots there are, check their rights, and store it under its numeric id.

    Raises InvalidParameter with what to fix when no bot can post in it; nothing is stored then.
    """
    channel = _chat_of(channel)
    if not channel:
        raise InvalidParameter(f"This is not a channel. {HOW_TO_NAME}", parameter="channel")
    bots = [bot for bot in all_bots() if bot.state != BotState.DISABLED]
    if not bots:
        raise InvalidParameter("Add a bot first: the channel is looked up with it.")
    chat, findings = look_up(channel, bots)
    if chat is None or not any(finding.ok for finding in findings):
        raise InvalidParameter(" ".join(dict.fromkeys(f"{finding.text} {finding.fix}" for finding in findings)))
    store_channel(chat, make_default=make_default)
    for finding in findings:
        note_rights(finding, chat.chat_id)
    return known_channel(chat.chat_id), findings


def _chat_of(text: str) -> str:
    """The id or @name that ``text`` is, or that a t.me link has in it; empty: neither. Nothing is asked of the link."""
    text = text.strip()
    if link := LINK_PATTERN.fullmatch(text):
        return f"-100{link['number']}" if link["number"] else f"@{link['name']}"
    return text if CHANNEL_PATTERN.fullmatch(text) else ""


def disable_channel(channel_id: str, *, reason: str = DISABLED_BY_OPERATOR) -> None:
    """Send no new parts there. What it holds stays readable. Raises NotFound."""
    known_channel(channel_id)
    set_channel(channel_id, {"state": BotState.DISABLED.value, "reason": reason})
    log.info("telegram_channel_disabled", channel_id=channel_id, reason=reason)


def enable_channel(channel_id: str) -> tuple[TelegramChannel, list[Finding]]:
    """Use a channel again, without making it the default. Raises NotFound, and what add_channel raises."""
    known_channel(channel_id)
    return add_channel(channel_id, make_default=False)


def update_channel(
    channel_id: str, fields: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None
) -> TelegramChannel:
    """Change some settings at once: ``scratch_chat_id`` (where copies that are only made to look at a message go, as an
    id, @name or link; empty: into the channel itself, and away again), ``playable`` (whether new media up to 50 MB is
    also posted playable there), ``messages_per_min`` (how many each bot sends there at most).

    Raises NotFound, and InvalidParameter, also when a bot cannot post in the scratch chat. ``seen``: raises Conflict,
    and changes nothing, where these settings are no longer what they were.
    """
    known_channel(channel_id)
    changes = dict(fields)
    if not 1 <= changes.get("messages_per_min", 1) <= MAX_MESSAGES_PER_MIN:
        raise InvalidParameter(f"Messages a minute go from 1 to {MAX_MESSAGES_PER_MIN}.", parameter="messages_per_min")
    if changes.get("scratch_chat_id"):
        changes["scratch_chat_id"] = _scratch_chat_id(changes["scratch_chat_id"])
    if not set_channel(channel_id, changes, seen=seen):
        known_channel(channel_id)
        raise Conflict(CHANGED_MEANWHILE)
    return known_channel(channel_id)


def _scratch_chat_id(text: str) -> str:
    chat = _chat_of(text)
    if not chat:
        raise InvalidParameter(f"This is not a chat. {HOW_TO_NAME}", parameter="scratch_chat")
    bots = [bot for bot in all_bots() if bot.state != BotState.DISABLED]
    found, findings = look_up(chat, bots)
    if found is None or not all(finding.ok for finding in findings):
        problems = dict.fromkeys(f"{finding.text} {finding.fix}" for finding in findings if not finding.ok)
        text = " ".join(problems) or "There is no bot that could post there."
        raise InvalidParameter(text, parameter="scratch_chat")
    return found.chat_id


def set_playable(channel_id: str, playable: bool) -> TelegramChannel:
    """``update_channel`` for one setting."""
    return update_channel(channel_id, {"playable": playable})


def set_messages_per_min(channel_id: str, messages_per_min: int) -> TelegramChannel:
    """``update_channel`` for one setting."""
    return update_channel(channel_id, {"messages_per_min": messages_per_min})


def set_scratch_chat(channel_id: str, chat: str) -> TelegramChannel:
    """``update_channel`` for one setting."""
    return update_channel(channel_id, {"scratch_chat_id": chat})


def store_channel(chat: Chat, *, make_default: bool) -> None:
    """Make or refresh a channel's record; a disabled one becomes active."""
    now = datetime.now(UTC)
    collection = TelegramChannel._get_collection()
    collection.update_one(
        {"_id": chat.chat_id},
        {
            "$set": {"title": chat.title, "username": chat.username, "state": BotState.ACTIVE.value, "reason": "",
                     "checked_at": now, "updated_at": now},
            "$setOnInsert": {"created_at": now, "last_message_id": 0, "messages_per_min": 60, "scratch_chat_id": "",
                             "is_default": False},
        },
        upsert=True,
    )  # fmt: skip
    if make_default:
        make_channel_default(chat.chat_id)
    forget_roster()


def make_channel_default(channel_id: str) -> None:
    """Send new parts to this channel from now on. The others stay readable. Raises NotFound, InvalidParameter."""
    if known_channel(channel_id).state == BotState.DISABLED:
        raise InvalidParameter("This channel is not in use. Use it again first.")
    collection = TelegramChannel._get_collection()
    while True:  # ends: each round is lost only to somebody else who made another channel the default
        collection.update_many({"is_default": True, "_id": {"$ne": channel_id}}, {"$set": {"is_default": False}})
        try:
            collection.update_one({"_id": channel_id}, {"$set": {"is_default": True, "updated_at": datetime.now(UTC)}})
        except DuplicateKeyError:
            continue
        break
    forget_roster()


def rename_channel(channel: TelegramChannel, chat: Chat) -> None:
    """A channel that was seeded by its @name gets its number, before any part refers to the name."""
    was_default = channel.is_default
    set_channel(channel.channel_id, {"is_default": False})
    store_channel(chat, make_default=was_default)
    set_channel(chat.chat_id, {"state": channel.state, "reason": channel.reason})
    TelegramChannel._get_collection().delete_one({"_id": channel.channel_id})
