"""Cuts an asset into parts."""

from __future__ import annotations

from typing import NamedTuple

from apps.telegram_cache.documents import BLOCK_BYTES

SIZES_IN_TURN = 3
VARY_FROM_BLOCKS = 8


class Stretch(NamedTuple):
    offset: int
    size: int


def plan_parts(size_bytes: int, part_bytes: int) -> list[Stretch]:
    """Stretches of whole 1 MiB blocks (the last one ends where the asset ends), none above ``part_bytes``.

    Neighbours differ by a block where parts are large enough: uploads of identical size from one bot are spaced.
    """
    most = max(1, part_bytes // BLOCK_BYTES)
    stretches: list[Stretch] = []
    offset = 0
    while offset < size_bytes:
        fewer = len(stretches) % SIZES_IN_TURN if most >= VARY_FROM_BLOCKS else 0
        size = min((most - fewer) * BLOCK_BYTES, size_bytes - offset)
        stretches.append(Stretch(offset, size))
        offset += size
    return stretches
