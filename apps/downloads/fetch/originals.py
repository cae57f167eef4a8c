"""Brings a stored file to where ffmpeg can read it: from the hot store at once, from Telegram block by block."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from apps.core.errors import UpstreamError
from apps.downloads.fetch.room import require_room
from apps.downloads.fetch.threads import in_thread
from apps.streaming.hotstore import BLOCK_BYTES, HotStore
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.reader import TelegramFiller, target_to_fill


async def bring_original(store: HotStore, asset: Asset, path: Path, *, keep_free_bytes: int | None) -> None:
    """A second name of the stored file at ``path``, whole and checked against its record.

    Raises HotStoreFull, and what ``TelegramFiller.fill`` raises when the bytes cannot be had.
    """
    if not await in_thread(lambda _: store.is_complete(asset.id, asset.generation)):
        require_room(store.root, asset.size_bytes or 0, keep_free_bytes=keep_free_bytes)
        await _fill(store, asset)
    try:
        await in_thread(lambda _: os.link(store.data_file(asset.id, asset.generation), path))
    except FileNotFoundError:  # it left the disk in this very moment
        raise UpstreamError("The stored copy is gone.") from None


async def _fill(store: HotStore, asset: Asset) -> None:
    """Bring every block that is missing here back from Telegram."""
    size_bytes, target = asset.size_bytes or 0, target_to_fill(asset)
    hot_file = await in_thread(
        lambda _: store.open_sparse(asset.id, asset.generation, size_bytes=size_bytes, block_hashes=target.block_hashes)
    )
    filler = TelegramFiller()
    try:
        with closing(hot_file):
            for block in range(-(-size_bytes // BLOCK_BYTES)):
                await filler.fill(target, hot_file, block)
    finally:
        await filler.aclose()
