"""Whether a bot is an administrator of a channel now. Only then does "message not found" say that a message is gone."""

from __future__ import annotations

import time
from collections import OrderedDict

from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.bot_files import BotFiles
from apps.telegram_cache.clients.errors import TelegramRefused
from apps.telegram_cache.roster import Bot

REMEMBERED_S = 10.0  # many parts are asked for in a row; a right that was taken away is seen soon
MAX_KEPT = 1000

_known: OrderedDict[tuple[str, str], tuple[bool, float]] = OrderedDict()


def is_administrator(bot: Bot, channel_id: str) -> bool:
    """As Telegram said it at most 10 s ago. Raises a TelegramError that is no refusal."""
    known = _remembered(bot, channel_id)
    if known is None:
        try:
            rights = BotApi(bot.token).get_chat_member(channel_id, bot.bot_id)
        except TelegramRefused:
            return _remember(bot, channel_id, False)
        known = _remember(bot, channel_id, rights.is_administrator)
    return known


async def ais_administrator(files: BotFiles, bot: Bot, channel_id: str) -> bool:
    """The same for readers."""
    known = _remembered(bot, channel_id)
    if known is None:
        try:
            rights = await files.get_chat_member(bot.token, chat_id=channel_id, user_id=bot.bot_id)
        except TelegramRefused:
            return _remember(bot, channel_id, False)
        known = _remember(bot, channel_id, rights.is_administrator)
    return known


def _remembered(bot: Bot, channel_id: str) -> bool | None:
    known, until = _known.get((bot.token, channel_id), (False, 0.0))
    return known if until > time.monotonic() else None


def _remember(bot: Bot, channel_id: str, known: bool) -> bool:
    _known[bot.token, channel_id] = (known, time.monotonic() + REMEMBERED_S)
    _known.move_to_end((bot.token, channel_id))
    while len(_known) > MAX_KEPT:
        _known.popitem(last=False)
    return known
