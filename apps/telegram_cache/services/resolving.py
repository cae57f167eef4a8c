"""Finds out whether a part whose sending ended without an answer is in the channel.

The Bot API cannot list messages, but message ids count up within a channel and a bot can forward any message by its id:
the copy shows the caption, which holds the attempt id. So the ids after the newest one known before the attempt are
forwarded one by one (copies are deleted at once) until the caption is found or the ids come to an end.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from apps.telegram_cache.clients.answers import StoredMessage
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import MessageNotFound, TelegramError
from apps.telegram_cache.documents import Asset, Part
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.selectors import find_channel, stored_message_ids
from apps.telegram_cache.services.copying import make_copy
from apps.telegram_cache.services.pool import Slot, note_error
from apps.telegram_cache.services.upload_records import add_orphan, note_message_id

log = structlog.get_logger(__name__)
LOOK_AHEAD = 5  # ids after the newest one known; that many missing in a row is the end
MAX_PROBES = 40
TOKEN_WAIT_S = 5.0


class CannotTell(Exception):
    """The API does not let us find out (too many messages to look through, or forwarding is refused)."""


def caption_of(asset_id: str, part: Part, *, attempt_id: str, sha256: str) -> str:
    return f"yt1|{asset_id}|{part.index}|{attempt_id}|{sha256[:16]}"


def find_sent(asset: Asset, part: Part, *, take: Callable[[str], Slot]) -> tuple[Bot, StoredMessage] | None:
    """The message of an attempt and the bot that saw it, or None when it is certainly not there (by now).

    ``take`` gives a slot in the part's channel for each message sent. Raises CannotTell, a TelegramError, or what
    ``take`` raises.
    """
    channel_id = part.channel_id or ""
    channel = find_channel(channel_id)
    wanted = caption_of(asset.id, part, attempt_id=part.attempt_id or "", sha256=part.sha256 or "")
    known_to = channel.last_message_id if channel else 0
    first = (part.after_message_id or 0) + 1
    ours = stored_message_ids(channel_id, after=first - 1, up_to=known_to)
    misses = probes = 0
    message_id = first - 1
    while misses < LOOK_AHEAD:
        message_id += 1
        if message_id in ours:
            continue
        probes += 1
        if probes > MAX_PROBES:
            raise CannotTell("too many messages came in between")
        try:
            bot, copy_id, file = _look_at(asset, part, channel_id, message_id, take)
        except MessageNotFound:
            misses += message_id > known_to
            continue
        ours.add(copy_id)
        known_to = max(known_to, message_id, copy_id)
        if file is not None and file.caption == wanted and file.file_size in (None, part.size):
            return bot, StoredMessage(
                message_id=message_id,
                chat_id=file.chat_id,
                file_id=file.file_id,
                file_unique_id=file.file_unique_id,
                file_size=file.file_size,
                caption=file.caption,
            )
    return None


def _look_at(
    asset: Asset, part: Part, channel_id: str, message_id: int, take: Callable[[str], Slot]
) -> tuple[Bot, int, StoredMessage | None]:
    if roster().channel(channel_id) is None:
        raise CannotTell("the channel is no longer on record")
    with take(channel_id) as slot:
        try:
            target, copy = make_copy(
                slot.bot, channel_id=channel_id, message_id=message_id, wait_s=TOKEN_WAIT_S, paid=True
            )
        except TelegramError as error:
            note_error(error, slot.bot, channel_id=channel_id)
            raise
        if target == channel_id:
            note_message_id(channel_id, copy.message_id)
        remove_message(
            BotApi(slot.bot.token), asset.id, part, chat_id=target, message_id=copy.message_id, reason="copy"
        )
        return slot.bot, copy.message_id if target == channel_id else 0, copy.file


def remove_message(api: BotApi, asset_id: str, part: Part, *, chat_id: str, message_id: int, reason: str) -> None:
    """Delete a message that no part needs; when Telegram does not let us, note it as an orphan."""
    try:
        api.delete_message(chat_id=chat_id, message_id=message_id)
    except MessageNotFound:
        return
    except TelegramError as error:
        log.warning("telegram_message_not_deleted", asset_id=asset_id, message_id=message_id, error=str(error))
        add_orphan(asset_id, part, channel_id=chat_id, message_id=message_id, reason=reason)
