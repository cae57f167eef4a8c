"""Room on the disk for a fetch: whether there is enough, and making some."""

from __future__ import annotations

import shutil
from pathlib import Path

from apps.core.tunables import hot_max_bytes
from apps.streaming.hotstore import HotStore, HotStoreFull
from apps.telegram_cache.services import evict_hot


def require_room(folder: Path, size_bytes: int, *, keep_free_bytes: int) -> None:
    """Raises HotStoreFull unless the disk takes that many more bytes and keeps ``keep_free_bytes`` free."""
    missing = size_bytes + keep_free_bytes - shutil.disk_usage(folder).free
    if missing > 0:
        raise HotStoreFull("not enough room on the disk", missing_bytes=missing)


def make_room(store: HotStore, missing_bytes: int) -> None:
    """Have files leave the hot store that are safe in Telegram, until ``missing_bytes`` more are free, or fewer."""
    evict_hot(max_bytes=max(0, min(hot_max_bytes(), store.usage().disk_bytes - missing_bytes)))
