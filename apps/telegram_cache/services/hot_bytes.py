"""Reads an asset's stretches from the hot store for sending: checked against the record, with flat memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from apps.streaming.hotstore import HotStore, HotStoreFull, WriterBusy
from apps.telegram_cache.documents import BLOCK_BYTES, Asset, PartState
from apps.telegram_cache.reach import is_in_reach

PIECE_BYTES = 256 * 1024
BLOCKS_PER_MAPPING = 16  # mapped pages count as this process's memory until the mapping is closed


class HotBytesMissing(Exception):
    """The hot store of this machine does not have these bytes."""


class HotBytesWrong(Exception):
    """The bytes on disk do not match the record."""


def is_rest_here(store: HotStore, asset: Asset) -> bool:
    """Whether the hot file has every byte that no stored part gives: nothing is lost, and the next upload mends it.

    An unfinished file of an earlier boot counts after ``look_again`` only. A few microseconds for a file that is
    open already.
    """
    whole = sum(part.size for part in asset.parts)
    if not asset.is_finished or whole != asset.size_bytes or asset.parts_generation != asset.generation:
        return False
    hot_file = store.open(asset.id, asset.generation)
    if hot_file is None:
        return False
    with closing(hot_file):
        missing = [part for part in asset.parts if part.state != PartState.STORED or not is_in_reach(part.size)]
        return all(hot_file.available_from(part.offset) >= part.size for part in missing)


def is_in_doubt(store: HotStore, asset: Asset) -> bool:
    """Whether ``look_again`` would have to hash: something of the file is on the disk, and nobody knows what."""
    if not asset.size_bytes or not asset.block_hashes or not Path(store.data_file(asset.id, asset.generation)).exists():
        return False
    hot_file = store.open(asset.id, asset.generation)
    if hot_file is None:
        return True
    hot_file.close()
    return False


def look_again(store: HotStore, asset: Asset) -> None:
    """Hash what an earlier boot left unfinished on the disk, as far as it is there, so that what is right counts again.

    Takes seconds for a large file of that kind, and microseconds for any other.
    """
    if is_in_doubt(store, asset):
        with suppress(HotStoreFull, WriterBusy):  # it stays as it is
            store.open_sparse(
                asset.id, asset.generation, size_bytes=asset.size_bytes or 0, block_hashes=asset.block_hashes
            ).close()


def can_be_read(store: HotStore, asset: Asset) -> bool:
    """Whether every byte can be had without fetching: from Telegram, and from the hot file what is not there."""
    in_telegram = asset.is_in_telegram and all(is_in_reach(part.size) for part in asset.parts)
    return in_telegram or is_rest_here(store, asset)


class HotBytes:
    """The bytes of one asset on this machine."""

    def __init__(self, store: HotStore, asset: Asset) -> None:
        self._store = store
        self._asset_id = asset.id
        self._generation = asset.generation
        self._hashes = asset.block_hashes

    def sha256_of(self, offset: int, size: int) -> str:
        """SHA-256 of a stretch. Raises HotBytesMissing, HotBytesWrong."""
        digest = hashlib.sha256()
        for block in self._blocks(offset, size):
            digest.update(block)
        return digest.hexdigest()

    def has(self, offset: int, size: int) -> bool:
        """Whether the stretch is here; nothing is checked."""
        hot_file = self._store.open(self._asset_id, self._generation)
        if hot_file is None:
            return False
        with closing(hot_file):
            return hot_file.available_from(offset) >= size

    def discard(self) -> None:
        """Remove the file: it was found wrong. Its right blocks are still in Telegram, or it is fetched anew."""
        self._store.remove(self._asset_id, self._generation)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """The stretch in small pieces; no piece of a block comes out before the whole block has been checked.

        Raises HotBytesMissing, HotBytesWrong.
        """
        for block in self._blocks(offset, size):
            for at in range(0, len(block), PIECE_BYTES):
                yield block[at : at + PIECE_BYTES]

    def _blocks(self, offset: int, size: int) -> Iterator[bytes]:
        end = offset + size
        for start in range(offset, end, BLOCKS_PER_MAPPING * BLOCK_BYTES):
            stop = min(start + BLOCKS_PER_MAPPING * BLOCK_BYTES, end)
            hot_file = self._store.open(self._asset_id, self._generation)
            if hot_file is None:
                raise HotBytesMissing("the file is not in the hot store")
            with closing(hot_file):
                if hot_file.available_from(start) < stop - start:
                    raise HotBytesMissing("the hot store has only a part of the file")
                for at in range(start, stop, BLOCK_BYTES):
                    with hot_file.view(at, min(at + BLOCK_BYTES, stop)) as view:
                        block = bytes(view)
                    self._check(at // BLOCK_BYTES, block)
                    yield block

    def _check(self, number: int, block: bytes) -> None:
        if number >= len(self._hashes) or hashlib.sha256(block).digest() != self._hashes[number]:
            raise HotBytesWrong(f"block {number} does not match the record")
