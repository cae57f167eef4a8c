"""Room on the disk for a fetch: whether there is enough, making some, and waiting for it."""

from __future__ import annotations

from pathlib import Path

from apps.core.errors import TooLarge
from apps.core.room import room_of
from apps.downloads.errors import NoRoom
from apps.streaming.hotstore import HotStoreFull
from apps.telegram_cache.services import make_room_now


def require_room(folder: Path, size_bytes: int, *, keep_free_bytes: int | None) -> None:
    """Raises HotStoreFull unless the disk takes that many more bytes and keeps ``keep_free_bytes`` free (None: what the
    hot store never takes), and TooLarge when it never will."""
    room = room_of(folder)
    if size_bytes > room.total_bytes - room.left_bytes:
        raise TooLarge("The server's disk is too small for this file.")
    kept_bytes = room.left_bytes if keep_free_bytes is None else keep_free_bytes
    missing = size_bytes + kept_bytes - room.free_bytes
    if missing > 0:
        raise HotStoreFull("not enough room on the disk", missing_bytes=missing)


def make_room(folder: Path, missing_bytes: int) -> NoRoom:
    """Have files leave the hot store that are safe in Telegram, for the next attempt. Gives the error of this one."""
    needs_free_bytes = room_of(folder).free_bytes + missing_bytes if missing_bytes else None
    make_room_now(needs_free_bytes)
    return NoRoom(needs_free_bytes=needs_free_bytes)


def raise_if_still_full(needs_free_bytes: int | None) -> None:
    """Raises NoRoom when an attempt would find no room again, so that no source is asked for nothing. Has files leave
    the hot store for it."""
    if needs_free_bytes and not make_room_now(needs_free_bytes):
        raise NoRoom(needs_free_bytes=needs_free_bytes)
