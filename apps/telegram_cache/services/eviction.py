"""Keeps the hot store within its bounds: least recently read files go first, never one that is nowhere else."""

from __future__ import annotations

import itertools
import math
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from pymongo.errors import PyMongoError
from redis import RedisError

from apps.core.errors import Conflict, NotFound
from apps.core.hot_names import hot_store_name, note_eviction
from apps.core.redis import redis_client
from apps.core.room import room_of
from apps.core.tunables import hot_max_bytes
from apps.streaming.hotstore import BLOCK_BYTES, FileState, HotEntry, HotStore
from apps.telegram_cache.documents import FINISHED_STATES, AssetState
from apps.telegram_cache.reach import is_in_reach
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.selectors import assets_in_state, kept_generations, stored_parts, telegram_is_set_up

log = structlog.get_logger(__name__)
STALE_S = 3600.0
LONGEST_REST_S = 60.0  # a bot that Telegram lets rest for longer cannot bring anything back now
GIVEN_UP = (AssetState.ABSENT.value, AssetState.FAILED.value)
FINISHED_FILES = (FileState.FINAL, FileState.SPARSE)
IN_VAIN_S = 5.0
IN_VAIN_SHARE = 10
SAID_EVERY_S = 3600
FORGOTTEN_S = 7 * 86400
_BATCH = 500
_ASKED_AT_ONCE = 1000
_TURNS = 120
_runs = itertools.count(int(time.time()))  # of this process; not from 0, so that restarts begin at different turns


OnRemoved = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """What one run did."""

    removed: tuple[str, ...] = ()
    freed_bytes: int = 0
    stale_removed: int = 0
    still_over_bytes: int = 0  # more than allowed, and nothing that may go


def evict_hot(
    *,
    max_bytes: int | None = None,
    missing_bytes: int = 0,
    now: float | None = None,
    on_removed: OnRemoved | None = None,
    in_turns: bool = True,
) -> Eviction:
    """Remove files until the store fits ``max_bytes`` (HOT_MAX_BYTES) and the disk has room again. Idempotent.
    ``missing_bytes``: and until so many more are free, if the files that are finished take as many.

    Only files whose asset is in Telegram in full, and that a bot can bring back now, may go. Without any bot or channel
    on record there is no such place, and the bound alone decides; a bot or channel that is only disabled counts as on
    record. Files read just now are the last to go. Leftovers of assets that are no longer on
    record, of older generations and of abandoned work go when they are older than an hour; in a large store they are
    looked for a part in each run of this process, all of it within _TURNS; without ``in_turns`` in all of it now, for
    who runs once. ``on_removed`` is told after each file: its asset, the bytes
    it had, the bytes that still have to go.
    """
    now = time.time() if now is None else now
    store = HotStore(settings.ENV.hot_root)
    if not settings.ENV.hot_root.is_dir():
        return Eviction()
    entries = list(store.entries())
    stale = {_name(entry) for entry in _stale(entries, now, in_turns=in_turns)}
    freed = sum(store.remove(asset_id, generation) for asset_id, generation in stale)
    kept = [entry for entry in entries if _name(entry) not in stale]
    excess = _excess(kept, hot_max_bytes() if max_bytes is None else max_bytes)
    if excess < missing_bytes <= sum(entry.disk_bytes for entry in kept if entry.state in FINISHED_FILES):
        excess = missing_bytes
    removed = []
    for entry in _candidates(kept) if excess > 0 else ():
        if excess <= 0:
            break
        if not _may_go([entry]):  # asked again, right before it goes
            continue
        got = store.remove(entry.asset_id, entry.generation)
        excess -= got
        freed += got
        removed.append(entry.asset_id)
        if on_removed is not None:
            on_removed(entry.asset_id, got, max(0, excess))
    folders = _remove_stale_scratch(settings.ENV.hot_root / ".scratch", now)
    return Eviction(
        removed=tuple(removed), freed_bytes=freed, stale_removed=len(stale) + folders, still_over_bytes=max(0, excess)
    )


def keep_in_bounds() -> None:
    """The regular run. That more is there than allowed is logged when it begins, each hour meanwhile, and when it ends:
    by one of all workers of this hot store.
    """
    excess = evict_hot().still_over_bytes
    note_eviction()
    client, name = redis_client(), hot_store_name()
    over, said = f"yt:hot:over:{name}", f"yt:hot:over-said:{name}"
    if excess:
        if client.set(said, b"1", nx=True, ex=SAID_EVERY_S):
            begins = client.set(over, b"1", nx=True, ex=FORGOTTEN_S)
            event = "hot_store_over_its_bound" if begins else "hot_store_still_over_its_bound"
            log.warning(event, excess_bytes=excess)
    elif client.delete(over):
        client.delete(said)
        log.info("hot_store_within_its_bound_again")


_making_room = threading.Lock()
_in_vain_until = float("-inf")
_in_vain_for_bytes = 0


def make_room_now(needs_free_bytes: int | None = None) -> bool:
    """Whether so much of the disk is free by now; None: as much as one more block takes. Has files leave for it. Never
    raises.

    Of many that ask at once one looks through the store (200,000 files: three seconds); the others wait for it. What
    was in vain is not tried again, for as much or more, for IN_VAIN_S or IN_VAIN_SHARE times as long as that took.
    """
    global _in_vain_until, _in_vain_for_bytes
    with _making_room, suppress(OSError, PyMongoError, RedisError):
        room = room_of(settings.ENV.hot_root)
        needed = needs_free_bytes or room.left_bytes + 2 * BLOCK_BYTES
        if room.free_bytes >= needed:
            return True
        began_at = time.monotonic()
        if began_at < _in_vain_until and needed >= _in_vain_for_bytes:
            return False
        evict_hot(missing_bytes=needed - room.free_bytes)
        if room_of(settings.ENV.hot_root).free_bytes >= needed:
            return True
        now = time.monotonic()
        _in_vain_until, _in_vain_for_bytes = now + max(IN_VAIN_S, IN_VAIN_SHARE * (now - began_at)), needed
    return False


def evict_asset(asset_id: str) -> int:
    """Remove one asset's file from the hot store now; returns the bytes freed, 0 when there was none. Idempotent.

    Raises NotFound, or Conflict while the asset is nowhere else, or no bot can bring it back.
    """
    known = assets_in_state([asset_id]).get(asset_id)
    if known is None:
        raise NotFound("This is not in the cache.")
    state, generation = known
    if state != AssetState.CACHED.value:
        raise Conflict("It is not in Telegram in full yet: this is the only copy.")
    if telegram_is_set_up() and not _readable([asset_id]):
        raise Conflict("No bot can bring it back right now: this is the only copy that can be played.")
    freed: int = HotStore(settings.ENV.hot_root).remove(asset_id, generation)
    return freed


def _excess(entries: list[HotEntry], max_bytes: int) -> int:
    room = room_of(settings.ENV.hot_root)
    used = sum(entry.disk_bytes for entry in entries)
    return max(used - max_bytes, min(room.kept_free_bytes - room.free_bytes, used))


def _candidates(entries: list[HotEntry]) -> Iterator[HotEntry]:
    """Those that may go, the least recently read first. MongoDB is asked for as many as are taken, a batch at a time:
    not for all that is in the store whenever a little of it has to go."""
    finished = [entry for entry in entries if entry.state in FINISHED_FILES]
    finished.sort(key=lambda entry: entry.last_read_at)
    for at in range(0, len(finished), _BATCH):
        batch = finished[at : at + _BATCH]
        allowed = _may_go(batch)
        yield from (entry for entry in batch if _name(entry) in allowed)


def _may_go(entries: list[HotEntry]) -> set[tuple[str, int]]:
    """Those that can be read from Telegram now, or, with no Telegram on record, those that are finished."""
    is_set_up = telegram_is_set_up()
    safe = {AssetState.CACHED.value} if is_set_up else {state.value for state in FINISHED_STATES}
    known = assets_in_state(entry.asset_id for entry in entries)
    fitting = [
        entry
        for entry in entries
        if entry.asset_id in known and known[entry.asset_id][0] in safe and known[entry.asset_id][1] == entry.generation
    ]
    elsewhere = _readable([entry.asset_id for entry in fitting]) if is_set_up else None
    return {_name(entry) for entry in fitting if elsewhere is None or entry.asset_id in elsewhere}


def _readable(asset_ids: list[str]) -> set[str]:
    """Those of which each part can be brought back now, by one bot or another."""
    bots = [bot for bot in roster().bots if bot.cooling_s() <= LONGEST_REST_S]
    if not bots:
        return set()
    return {
        asset_id
        for asset_id, parts in stored_parts(asset_ids).items()
        if all(is_in_reach(part["size"]) and any(_can_read(bot, part) for bot in bots) for part in parts)
    }


def _can_read(bot: Bot, part: dict[str, Any]) -> bool:
    """By its own file_id, or by one that it can get by forwarding the stored message."""
    has_file_id = bot.bot_id in (part.get("file_ids") or {})
    return has_file_id or (part.get("message_id") is not None and part.get("channel_id") not in bot.barred)


def _name(entry: HotEntry) -> tuple[str, int]:
    return entry.asset_id, entry.generation


def _stale(entries: list[HotEntry], now: float, *, in_turns: bool) -> Iterator[HotEntry]:
    """Files of no asset, of another generation than its own (and the one kept until that is stored), or of a fetch that
    was given up, not touched for an hour.
    """
    old = [entry for entry in entries if now - entry.last_read_at > STALE_S]
    old = _in_turn(old) if in_turns else old
    for at in range(0, len(old), _BATCH):
        batch = old[at : at + _BATCH]
        kept = kept_generations(entry.asset_id for entry in batch)
        for entry in batch:
            state, generations = kept.get(entry.asset_id, ("", set()))
            other = entry.generation not in generations
            given_up = state in GIVEN_UP and entry.state in (FileState.GROWING, FileState.FAILED)
            if not state or other or given_up:
                yield entry


def _in_turn(entries: list[HotEntry]) -> list[HotEntry]:
    """Those that MongoDB is asked about in this run: about _ASKED_AT_ONCE. Where there are more, each has its turn once
    in _TURNS runs, by its id."""
    turns = min(_TURNS, math.ceil(len(entries) / _ASKED_AT_ONCE))
    if turns < 2:
        return entries
    turn = next(_runs) % turns
    return [entry for entry in entries if zlib.crc32(entry.asset_id.encode()) % turns == turn]


def _remove_stale_scratch(folder: Path, now: float) -> int:
    """Work folders (<asset id>/<attempt>) in which nothing has changed for an hour."""
    removed = 0
    for attempt in folder.glob("*/*"):
        if now - _last_change(attempt) > STALE_S:
            shutil.rmtree(attempt, ignore_errors=True)
            removed += 1
    return removed


def _last_change(folder: Path) -> float:
    newest = 0.0
    for path in (folder, *folder.rglob("*")):
        try:
            newest = max(newest, path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return newest
