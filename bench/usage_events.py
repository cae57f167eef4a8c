"""Made-up events of usage, as the bytes that MongoDB stores: making them must not take longer than storing them."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from random import Random
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

CHUNK = 10_000
SHAPES = 4_999
STATUSES = [200] * 88 + [404] * 6 + [429] * 4 + [502] * 2
TIERS = ["hot"] * 8 + ["telegram", "external"]
ROUTES = ["/api/v1/audio", "/api/v1/video", "/api/v1/info", "/api/v1/search", "/stream/audio", "/stream/video"]
KEYS = 200
# BSON: a document is its length, its fields, and a zero; a field is its type, its name and its value
_ID = b"\x02_id\x00" + struct.pack("<i", 15) + b"bench-"
_AT = b"\x00\x09at\x00"
_KEY = b"\x02key_prefix\x00" + struct.pack("<i", 9) + b"key"
_VIDEO = b"\x00\x02video_id\x00" + struct.pack("<i", 12) + b"vid"


def make_events(first: int, end: int, *, videos: int, at: datetime, step: timedelta) -> None:
    """Store the events of these numbers, the first one of the time ``at``, the next ones a step later each.

    In the order of time, as events come. A few videos and keys have most of the requests, as it is in life. The same
    each time, but for the clock.
    """
    from apps.analytics.documents import UsageEvent

    shapes = [bson.encode(_shape(Random(count)))[4:] for count in range(SHAPES)]  # noqa: S311 - made-up events
    collection = UsageEvent._get_collection()
    begins_ms, step_ms = at.timestamp() * 1000, step.total_seconds() * 1000
    for chunk in range(first, end, CHUNK):
        draw = Random(chunk).random  # noqa: S311 - made-up events
        events = [
            _event(
                count,
                int(begins_ms + (count - first) * step_ms),
                int(KEYS * draw() ** 4),
                int(videos * draw() ** 4),
                shapes[count % SHAPES],
            )
            for count in range(chunk, min(end, chunk + CHUNK))
        ]
        collection.insert_many(events, ordered=False)


def _event(number: int, at_ms: int, key: int, video: int, rest: bytes) -> RawBSONDocument:
    own = b"%b%08d%b%b%b%05d%b%08d\x00" % (_ID, number, _AT, struct.pack("<q", at_ms), _KEY, key, _VIDEO, video)
    return RawBSONDocument(struct.pack("<i", 4 + len(own) + len(rest)) + own + rest)


def _shape(random: Random) -> dict[str, Any]:
    return {
        "route": random.choice(ROUTES),
        "method": "GET",
        "status": random.choice(STATUSES),
        "tier": random.choice(TIERS),
        "first_byte_s": random.expovariate(50),
        "duration_s": random.random(),
        "bytes_sent": int(5_000_000 * random.random()),
    }
