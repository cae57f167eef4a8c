"""Which blocks are brought together, and which part of an asset they lie in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apps.streaming.ports import BytesGone
from apps.telegram_cache.documents import BLOCK_BYTES, Part, PartState

DAMAGED = "The stored copy of this media is damaged. It will be stored again; try again later."


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Blocks that are brought together: a whole part, or a window of one where any stretch can be read alone."""

    part: Part
    first_block: int
    block_count: int

    @property
    def stop_block(self) -> int:
        return self.first_block + self.block_count

    @property
    def offset_in_part(self) -> int:
        return self.first_block * BLOCK_BYTES - int(self.part.offset)


def cut_into_stretches(parts: Iterable[Part], window_blocks: int | None) -> list[Stretch]:
    """Each stored part, or windows of it. What no stored part covers is in none."""
    stretches = []
    for part in parts:
        if part.state != PartState.STORED:
            continue
        first = part.offset // BLOCK_BYTES
        stop = -(-(part.offset + part.size) // BLOCK_BYTES)
        step = window_blocks or stop - first
        stretches += [
            Stretch(part=part, first_block=at, block_count=min(step, stop - at)) for at in range(first, stop, step)
        ]
    return stretches


def stretch_of(stretches: list[Stretch], block: int) -> Stretch:
    """The stretch that has the block. Raises BytesGone when none does."""
    for stretch in stretches:
        if stretch.first_block <= block < stretch.stop_block:
            return stretch
    raise BytesGone(DAMAGED)
