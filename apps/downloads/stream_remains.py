"""What can still be read of a stored file that has lost parts: ranges without them need not wait for a new fetch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from apps.streaming.hotstore import BLOCK_BYTES
from apps.streaming.ranges import Unsatisfiable, parse_range, range_applies
from apps.telegram_cache.documents import Asset, Generation, PartState
from apps.telegram_cache.reach import is_in_reach


@dataclass(frozen=True, kw_only=True)
class Remains:
    """One generation of an asset, with the stretches that Telegram still has."""

    etag: str
    generation: int
    size_bytes: int
    mime: str
    block_hashes: tuple[bytes, ...]
    stored: tuple[tuple[int, int], ...]  # [start, stop), in order; neighbours are one

    @classmethod
    def of(cls, asset: Asset) -> Self | None:
        """Of an asset that is finished but not whole, or of what it was before it was to be fetched anew."""
        kept: Asset | Generation | None = asset if asset.is_finished else asset.previous
        if kept is None or not kept.size_bytes or (asset.is_finished and asset.is_in_telegram):
            return None
        stored: list[tuple[int, int]] = []
        for part in sorted(asset.parts_of(kept.generation) or (), key=lambda part: part.offset):
            if part.state != PartState.STORED or not is_in_reach(part.size):
                continue
            joins = bool(stored) and stored[-1][1] == part.offset
            start = stored.pop()[0] if joins else part.offset
            stored.append((start, part.offset + part.size))
        packed = bytes(kept.block_sha256 or b"")
        if not stored or not packed or stored == [(0, kept.size_bytes)]:
            return None  # one that is whole is fetched anew because somebody wants other bytes
        return cls(
            etag=etag_of(asset.id, kept.generation),
            generation=kept.generation,
            size_bytes=kept.size_bytes,
            mime=kept.mime or "",
            block_hashes=tuple(packed[at : at + 32] for at in range(0, len(packed), 32)),
            stored=tuple(stored),
        )

    def have(self, range_header: str | None, if_range: str | None) -> bool:
        """Whether all that such a request asks for is there, with the blocks that have to be checked for it."""
        if not range_applies(if_range, self.etag):
            return False
        try:
            wanted = parse_range(range_header, self.size_bytes)
        except Unsatisfiable:
            return False
        if wanted is None:
            return False
        first = wanted.start - wanted.start % BLOCK_BYTES
        end = min(-(-wanted.stop // BLOCK_BYTES) * BLOCK_BYTES, self.size_bytes)
        return any(start <= first and end <= stop for start, stop in self.stored)


def etag_of(asset_id: str, generation: int) -> str:
    """Strong, with quotes: the bytes of one generation never change."""
    return f'"{asset_id}-{generation}"'
