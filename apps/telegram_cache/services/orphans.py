"""Messages in a channel that no part needs: removed where Telegram lets us."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from apps.telegram_cache.administrators import is_administrator
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import MessageNotFound, TelegramError, TelegramRefused
from apps.telegram_cache.documents import Asset, Orphan, Part, PartState
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services.pool import EVERY_BOT_IS_BUSY, NoBotNow, note_error, take_delete, take_slot
from apps.telegram_cache.services.resolving import CannotTell, find_sent

log = structlog.get_logger(__name__)
LATE_AFTER = timedelta(minutes=15)  # a request is given up after 12 minutes; Telegram may store it a little later
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(days=1)
ENDS_AFTER = timedelta(days=30)
LOOKS_AT_ONCE = 3  # each posts a message in the channel, and takes a turn from uploads
LOOKS_IN_VAIN = 3  # in a channel that lets no bot look
LONGEST_PAUSE_S = 1.0  # between two calls; a bot that has to wait for longer is left alone


def remove_orphans(asset: Asset, *, now: datetime | None = None, end_at: float = math.inf) -> int:
    """Try to delete an asset's orphans; those gone leave the record. Returns how many.

    Bot API: bots can delete messages for 48 hours only; what is older stays on the list. Messages whose id nobody knows
    (sent without an answer) are looked for once nothing can arrive any more. A bad part's message stays until the part
    is stored anew. What was tried in vain is tried again after a minute, two, four, up to a day; in a channel where no
    bot can look nobody looks any more after the third time. ``end_at`` (monotonic): after it only the first is begun.
    """
    now = now or datetime.now(UTC)
    current = find_asset(asset.id)
    if current is None:
        return 0
    stored = {part.index for part in current.parts if part.state == PartState.STORED}
    removed = looks = tried = 0
    for orphan in current.orphans:
        if (orphan.reason == "bad" and orphan.index not in stored) or not _is_due(orphan, now):
            continue
        if tried and time.monotonic() > end_at:
            break
        tried += 1
        try:
            message_id = orphan.message_id
            if message_id is None:
                looks += 1
                if looks > LOOKS_AT_ONCE:
                    continue
                message_id = _find_late(current, orphan)
            is_gone = message_id is None or _delete(orphan, message_id)
        except (TelegramError, NoBotNow) as error:
            log.info("orphans_wait", asset_id=asset.id, error=f"{type(error).__name__}: {error}")
            return removed
        except CannotTell as reason:
            _put_off(current.id, orphan, now, gives_up=reason.for_good and orphan.tries + 1 >= LOOKS_IN_VAIN)
            continue
        if is_gone:
            _forget(asset.id, orphan)
            removed += 1
        else:
            _put_off(current.id, orphan, now)
    return removed


def end_old_orphans(*, now: datetime | None = None) -> None:
    """What could not be removed for ENDS_AFTER comes to its end. Idempotent.

    Messages that are known to be there stay listed, and nobody tries any more: only people can remove them. What was
    only thought to exist leaves the list: Bot API: bots can delete messages for 48 hours only, so that finding it now
    would help nobody.
    """
    now = now or datetime.now(UTC)
    old = {"noted_at": {"$lte": now - ENDS_AFTER}}
    perhaps = {**old, "message_id": None}
    Asset._get_collection().update_many({"orphans": {"$elemMatch": perhaps}}, {"$pull": {"orphans": perhaps}})
    Asset._get_collection().update_many(
        {"orphans": {"$elemMatch": {**old, "gave_up_at": None}}},
        {"$set": {"orphans.$[old].gave_up_at": now}},
        array_filters=[{"old.noted_at": old["noted_at"], "old.gave_up_at": None}],
    )


def _is_due(orphan: Orphan, now: datetime) -> bool:
    if orphan.gave_up_at is not None or (orphan.next_try_at is not None and orphan.next_try_at > now):
        return False
    if orphan.message_id is not None:
        return True
    return bool(orphan.size) and orphan.noted_at is not None and orphan.noted_at <= now - LATE_AFTER


def _put_off(asset_id: str, orphan: Orphan, now: datetime, *, gives_up: bool = False) -> None:
    """Not gone: the next try waits twice as long as this one did. A search that got on goes on soon."""
    asset = find_asset(asset_id)
    known = [each for each in asset.orphans if _named(each) == _named(orphan)] if asset else []
    got_on = any(each.after_message_id > orphan.after_message_id for each in known)
    tries = 0 if got_on else orphan.tries + 1
    wait = FIRST_WAIT if got_on else min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 20))
    fields = {"tried_at": now, "tries": tries, "next_try_at": now + wait, **({"gave_up_at": now} if gives_up else {})}
    here = {"_id": asset_id, "orphans": {"$elemMatch": _named(orphan)}}
    change = {"$set": {f"orphans.$.{name}": value for name, value in fields.items()}}
    Asset._get_collection().update_one(here, change)


def _delete(orphan: Orphan, message_id: int) -> bool:
    """Whether the message is gone. Raises NoBotNow, or a TelegramError that is no refusal."""
    for bot in roster().bots:
        if bot.cooling_s():
            continue
        _wait_for_turn(bot, orphan.channel_id)
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


def _wait_for_turn(bot: Bot, chat_id: str) -> None:
    """Raises NoBotNow."""
    while wait_s := take_delete(bot.bot_id, chat_id):
        if wait_s > LONGEST_PAUSE_S:
            raise NoBotNow(wait_s, EVERY_BOT_IS_BUSY)
        time.sleep(wait_s)


def _find_late(asset: Asset, orphan: Orphan) -> int | None:
    """The id of what an attempt without an answer stored after all; None: it stored nothing. Raises CannotTell."""
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
