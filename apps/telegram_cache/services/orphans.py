"""Messages in a channel that no part needs: removed where Telegram lets us."""

from __future__ import annotations

import structlog

from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import MessageNotFound, TelegramError, TelegramRefused
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services.pool import note_error

log = structlog.get_logger(__name__)


def remove_orphans(asset: Asset) -> int:
    """Try to delete an asset's orphans; those gone leave the record. Returns how many.

    Bot API: bots can delete messages for 48 hours only; what is older stays on the list, as do those whose message id
    nobody knows.
    """
    removed = 0
    for orphan in asset.orphans:
        if orphan.message_id is None:
            continue
        for bot in roster().bots:
            if bot.cooling_s():
                continue
            try:
                BotApi(bot.token).delete_message(chat_id=orphan.channel_id, message_id=orphan.message_id)
            except MessageNotFound:
                pass
            except TelegramError as error:
                note_error(error, bot)
                if isinstance(error, TelegramRefused):
                    continue
                return removed
            _forget(asset.id, orphan.channel_id, orphan.message_id)
            removed += 1
            break
    return removed


def _forget(asset_id: str, channel_id: str, message_id: int) -> None:
    gone = {"channel_id": channel_id, "message_id": message_id}
    Asset._get_collection().update_one({"_id": asset_id}, {"$pull": {"orphans": gone}})
