"""Messages in a channel that no part needs: removed where Telegram lets us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from apps.telegram_cache.administrators import is_administrator
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import MessageNotFound, TelegramError, TelegramRefused
from apps.telegram_cache.documents import Asset, Orphan, Part, PartState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services.pool import NoBotNow, note_error, take_slot
from apps.telegram_cache.services.resolving import CannotTell, find_sent

log = structlog.get_logger(__name__)
LATE_AFTER = timedelta(minutes=15)  # a request is given up after 12 minutes; Telegram may store it a little later


def remove_orphans(asset: Asset) -> int:
    """Try to delete an asset's orphans; those gone leave the record. Returns how many.

    Bot API: bots can delete messages for 48 hours only; what is older stays on the list. Messages whose id nobody knows
    (sent without an answer) are looked for once nothing can arrive any more. A bad part's message stays until the part
    is stored anew.
    """
    current = find_asset(asset.id)
    if current is None:
        return 0
    stored = {part.index for part in current.parts if part.state == PartState.STORED}
    removed = 0
    for orphan in current.orphans:
        if orphan.reason == "bad" and orphan.index not in stored:
            continue
        try:
            message_id = orphan.message_id if orphan.message_id is not None else _find_late(current, orphan)
            is_gone = message_id is None or _delete(orphan, message_id)
        except (TelegramError, NoBotNow) as error:
            log.info("orphans_wait", asset_id=asset.id, error=f"{type(error).__name__}: {error}")
            return removed
        except CannotTell:
            continue
        if is_gone:
            _forget(asset.id, orphan)
            removed += 1
    return removed


def _delete(orphan: Orphan, message_id: int) -> bool:
    """Whether the message is gone. Raises a TelegramError that is no refusal."""
    for bot in roster().bots:
        if bot.cooling_s():
            continue
        try:
            BotApi(bot.token).delete_message(chat_id=orphan.channel_id, message_id=message_id)
        except MessageNotFound:
            if not is_administrator(bot, orphan.channel_id):
                continue
        except TelegramRefused as error:
            note_error(error, bot)
            continue
        except TelegramError as error:
            note_error(error, bot)
            raise
        return True
    return False


def _find_late(asset: Asset, orphan: Orphan) -> int | None:
    """The id of what an attempt without an answer stored after all; None: it stored nothing. Raises CannotTell."""
    is_early = orphan.noted_at is None or orphan.noted_at > datetime.now(UTC) - LATE_AFTER
    if is_early or not orphan.size:
        raise CannotTell("it is too early, or it is not known where to look")
    part = Part(
        index=orphan.index, offset=0, size=orphan.size, sha256=orphan.sha256, channel_id=orphan.channel_id,
        attempt_id=orphan.attempt_id, after_message_id=orphan.after_message_id, state=PartState.UNKNOWN.value,
    )  # fmt: skip
    found = find_sent(asset, part, take=take_slot, note_seen=partial(_note_seen, asset.id, orphan))
    return found[1].message_id if found else None


def _named(orphan: Orphan) -> dict[str, Any]:
    return {"channel_id": orphan.channel_id, "message_id": orphan.message_id, "attempt_id": orphan.attempt_id}


def _note_seen(asset_id: str, orphan: Orphan, message_id: int) -> None:
    here = {"_id": asset_id, "orphans": {"$elemMatch": _named(orphan)}}
    Asset._get_collection().update_one(here, {"$max": {"orphans.$.after_message_id": message_id}})


def _forget(asset_id: str, orphan: Orphan) -> None:
    Asset._get_collection().update_one({"_id": asset_id}, {"$pull": {"orphans": _named(orphan)}})
