"""Gives bots their own file_ids of what other bots stored, for all parts at once: readers then need not do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from apps.telegram_cache.clients.errors import MessageNotFound, TelegramError
from apps.telegram_cache.documents import Asset, Part, PartState
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.selectors import iterate_assets
from apps.telegram_cache.services.copying import make_copy
from apps.telegram_cache.services.pool import note_error
from apps.telegram_cache.services.resolving import remove_message
from apps.telegram_cache.services.upload_records import note_message_id, set_file_id

log = structlog.get_logger(__name__)
LONGEST_WAIT_S = 120.0  # for a bot that must rest; a longer rest ends its part of this run


@dataclass(frozen=True, kw_only=True)
class Rekeyed:
    """One part for one bot. ``problem`` is empty when the bot has its file_id now."""

    asset_id: str
    index: int
    bot_id: str
    problem: str = ""


def count_missing(bot_ids: list[str]) -> int:
    """How many file_ids those bots lack."""
    return sum(1 for asset in iterate_assets() for _ in _missing(asset, bot_ids))


def rekey(bot_ids: list[str]) -> Iterator[Rekeyed]:
    """Get each missing file_id by forwarding the stored message; copies are deleted at once.

    Idempotent, and can be stopped and started again at any time. Telegram's limits are kept: this may take long.
    """
    for asset in iterate_assets():
        for part, bot_id in _missing(asset, bot_ids):
            bot = roster().bot(bot_id)
            if bot is None:
                yield Rekeyed(asset_id=asset.id, index=part.index, bot_id=bot_id, problem="the bot cannot be used now")
                continue
            try:
                _rekey(bot, asset.id, part)
            except TelegramError as error:
                note_error(error, bot, channel_id=part.channel_id or "")
                yield Rekeyed(asset_id=asset.id, index=part.index, bot_id=bot_id, problem=str(error))
            else:
                yield Rekeyed(asset_id=asset.id, index=part.index, bot_id=bot_id)


def _missing(asset: Asset, bot_ids: list[str]) -> Iterator[tuple[Part, str]]:
    for part in asset.parts:
        if part.state == PartState.STORED and part.message_id is not None:
            yield from ((part, bot_id) for bot_id in bot_ids if bot_id not in part.file_ids)


def _rekey(bot: Bot, asset_id: str, part: Part) -> None:
    channel_id = part.channel_id or ""
    target, copy = make_copy(bot, asset_id, part, message_id=part.message_id or 0, wait_s=LONGEST_WAIT_S)
    if target == channel_id:
        note_message_id(channel_id, copy.message_id)
    remove_message(bot, asset_id, part, chat_id=target, message_id=copy.message_id, reason="copy")
    if copy.file is None or copy.file.file_unique_id != part.file_unique_id:
        raise MessageNotFound("the message holds another file")
    set_file_id(
        asset_id, index=part.index, file_unique_id=part.file_unique_id, bot_id=bot.bot_id, file_id=copy.file.file_id
    )
