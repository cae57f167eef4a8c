"""Cuts an asset into parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from apps.telegram_cache.documents import BLOCK_BYTES

SIZES_IN_TURN = 3
VARY_FROM_BLOCKS = 8


class Stretch(NamedTuple):
    offset: int
    size: int


def plan_around(kept: Sequence[Stretch], size_bytes: int, part_bytes: int) -> list[Stretch]:
    """As ``plan_parts``, with stretches that stay as they are, in order; only what lies between them is cut anew."""
    planned: list[Stretch] = []
    offset = 0
    for stretch in (*kept, Stretch(size_bytes, 0)):
        planned += [Stretch(offset + at, size) for at, size in plan_parts(stretch.offset - offset, part_bytes)]
        if stretch.size:
            planned.append(stretch)
        offset = stretch.offset + stretch.size
    return planned


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
