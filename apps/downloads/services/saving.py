"""A finished asset as a file of its own, for commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from apps.core.errors import NotFound
from apps.downloads.services.media import hot_store
from apps.streaming.hotstore import BLOCK_BYTES, HotFile
from apps.streaming.ports import StreamTarget
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.reader import TelegramFiller, target_to_fill


def save_asset(asset: Asset, path: Path, *, on_bytes: Callable[[int], None]) -> None:
    """Write a finished asset to ``path``, which appears only when it is whole. Missing blocks come from Telegram.

    ``on_bytes`` is told how many bytes are written. Raises OSError, NotFound for an asset that is not finished, and
    what ``BlockFiller.fill`` raises.
    """
    if not asset.is_finished or not asset.size_bytes:
        raise NotFound("This file is not complete.")
    target = target_to_fill(asset)
    hot_file = hot_store().open_sparse(
        asset.id, asset.generation, size_bytes=asset.size_bytes, block_hashes=target.block_hashes
    )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        asyncio.run(_copy(hot_file, target, unfinished, on_bytes))
        unfinished.replace(path)
    finally:
        hot_file.close()
        unfinished.unlink(missing_ok=True)


async def _copy(hot_file: HotFile, target: StreamTarget, path: Path, on_bytes: Callable[[int], None]) -> None:
    filler = TelegramFiller()
    size_bytes = target.size_bytes or 0
    try:
        with path.open("xb") as file:
            for number, start in enumerate(range(0, size_bytes, BLOCK_BYTES)):
                if not hot_file.has_block(number):
                    await filler.fill(target, hot_file, number)
                stop = min(start + BLOCK_BYTES, size_bytes)
                file.write(hot_file.view(start, stop))
                on_bytes(stop)
    finally:
        await filler.aclose()
