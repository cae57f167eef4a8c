"""Very many made-up assets, as the bytes that MongoDB stores: making them must not take longer than storing them."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern

CHUNK = 5_000
WRITERS = 2
USED_WITHIN = timedelta(days=120)
NAMED = 200
"""So many files, the first ones, have the word "named" in their title, however many there are."""
DATES = ("last_accessed_at", "created_at", "updated_at", "verified_at", "verify_tried_at")


def _size(count: int) -> bytes:
    return struct.pack("<i", count)


# BSON: a document is its length, its fields, and a zero; a field is its type, its name and its value
_WORDS = (
    b"\x020\x00" + _size(15) + b"title%09d\x00"
    b"\x021\x00" + _size(6) + b"%b\x00"
    b"\x022\x00" + _size(8) + b"%07d\x00\x00"
)  # fmt: skip
_OWN = (
    b"\x02_id\x00" + _size(25) + b"%b\x00"
    b"\x02video_id\x00" + _size(12) + b"%b\x00"
    b"\x02title\x00" + _size(29) + b"title%09d %b %07d\x00"
    b"\x04words\x00" + _size(4 + len(_WORDS % (0, b"named", 0))) + _WORDS +
    b"\x10size_bytes\x00%b\x10access_count\x00%b" + b"".join(b"\x09%b\x00%%b" % name.encode() for name in DATES)
)  # fmt: skip


def make_assets(count: int) -> None:
    """Store so many: in Telegram, of different titles, sizes and times. The same each time, but for
    the clock."""
    from apps.telegram_cache.documents import Asset, MediaKind

    kinds = ((MediaKind.VIDEO, "720p"), (MediaKind.AUDIO, "m4a"))
    rests = [bson.encode(_rest(kind.value, variant))[4:] for kind, variant in kinds]
    now_ms, within_ms = datetime.now(UTC).timestamp() * 1000, USED_WITHIN.total_seconds() * 1000
    collection = Asset._get_collection().with_options(write_concern=WriteConcern(w=1))

    def store(start: int) -> None:
        draw = Random(start).random  # noqa: S311 - made-up assets
        assets = [
            _asset(number, *kinds[number % 2], int(now_ms - within_ms * draw()), draw(), draw(), rests[number % 2])
            for number in range(start, min(start + CHUNK, count))
        ]
        collection.insert_many(assets, ordered=False)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(store, range(0, count, CHUNK)))


def _asset(
    number: int, kind: Any, variant: str, used_ms: int, title: float, size: float, rest: bytes
) -> RawBSONDocument:
    from apps.telegram_cache.documents import AssetKey

    video_id, word = f"g{number:010}", int(1e9 * title)
    asset_id = AssetKey(video_id, kind, variant).asset_id
    at = (struct.pack("<q", used_ms),) * len(DATES)
    title_words = (word, b"named" if number < NAMED else b"other", number)
    texts = (asset_id.encode(), video_id.encode(), *title_words, *title_words)
    own = _OWN % (*texts, _size(int(1e8 * size)), _size(int(1000 * size)), *at)
    return RawBSONDocument(_size(4 + len(own) + len(rest)) + own + rest)


def _rest(kind: str, variant: str) -> dict[str, Any]:
    return {
        "kind": kind, "variant": variant, "duration_s": 200.0, "container": "m4a", "mime": "audio/mp4", "generation": 1,
        "attempt": 1, "state": "cached", "is_best": True, "parts": [], "orphans": [], "parts_generation": 1,
    }  # fmt: skip
