"""Copies that are made to look at a stored message: where they go, at what rate, and whose fault a refusal is.

Bot API: forwardMessage names two chats, and a refusal does not say which one it means. So a copy that the scratch chat
refuses is made in the channel itself; only when that works was the scratch chat at fault.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from apps.telegram_cache.clients.answers import ForwardedCopy
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import BotBusy, BotForbidden, ChatNotFound, TelegramUncertain
from apps.telegram_cache.documents import Part
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.services.orphan_records import add_lost_message
from apps.telegram_cache.services.pool import note_error, take_token

REFUSED = (BotForbidden, ChatNotFound)
TOO_MANY = "the bot has to pause before it may send more"


class MadeCopy(NamedTuple):
    chat_id: str
    copy: ForwardedCopy


def chats_for_copies(bot: Bot, channel_id: str) -> list[str]:
    """Where this bot puts a copy of a channel's message: its scratch chat, then the channel itself."""
    known = roster()
    channel, fresh = known.channel(channel_id), known.bot(bot.bot_id) or bot
    scratch = channel.scratch_chat_id if channel else ""
    return [scratch, channel_id] if scratch and scratch not in fresh.barred else [channel_id]


def make_copy(bot: Bot, asset_id: str, part: Part, *, message_id: int, wait_s: float, paid: bool = False) -> MadeCopy:
    """Forward a message of the part's channel. The caller deletes the copy. ``paid``: a token of the channel was taken
    already. A copy that may have been made without an answer is noted on the asset's record.

    Raises BotBusy when the bot may send nothing there for longer than ``wait_s``, and what Telegram says: a refusal
    that comes out is about the channel, never about its scratch chat.
    """
    refusal, channel_id = None, part.channel_id or ""
    for chat_id in chats_for_copies(bot, channel_id):
        if not (paid and chat_id == channel_id):
            wait_for_token(bot, chat_id, wait_s=wait_s)
        try:
            copy = BotApi(bot.token).forward_message(to_chat_id=chat_id, from_chat_id=channel_id, message_id=message_id)
        except REFUSED as error:
            if chat_id == channel_id:
                raise
            refusal = error
            continue
        except TelegramUncertain:
            add_lost_message(asset_id, part, channel_id=chat_id, reason="copy")
            raise
        note_refusal(refusal, bot, channel_id)
        return MadeCopy(chat_id, copy)
    raise RuntimeError("the channel itself is always the last one")


def note_refusal(refusal: BotForbidden | ChatNotFound | None, bot: Bot, channel_id: str) -> None:
    """A copy could be made in the channel after its scratch chat had refused it: the bot leaves that chat alone."""
    channel = roster().channel(channel_id)
    if refusal is not None and channel is not None and channel.scratch_chat_id:
        note_error(refusal, bot, channel_id=channel.scratch_chat_id)


def wait_for_token(bot: Bot, chat_id: str, *, wait_s: float) -> None:
    """Return once the bot may send one message there. Raises BotBusy when that takes longer than ``wait_s``."""
    waited_s = 0.0
    while needed_s := take_token(bot.bot_id, chat_id):
        waited_s += needed_s
        if waited_s > wait_s:
            raise BotBusy(TOO_MANY, retry_after_s=needed_s)
        time.sleep(needed_s)
