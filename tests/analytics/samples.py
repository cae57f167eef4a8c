"""Events for tests."""

from __future__ import annotations

from datetime import datetime
from itertools import count
from typing import Any

from apps.analytics.documents import UsageEvent
from apps.analytics.rollup_marks import mark_minutes

_numbers = count(1)


def add_events(at: datetime, number: int = 1, **fields: Any) -> None:
    """Put events into ``usage_stats`` and mark their minute, as draining does."""
    shape = {
        "key_prefix": "abcd1234",
        "route": "/api/v1/audio",
        "method": "GET",
        "status": 200,
        "tier": "hot",
        "video_id": "abcdefghijk",
        "first_byte_s": 0.004,
        "duration_s": 0.01,
        "bytes_sent": 100,
        **fields,
    }
    shape = {name: value for name, value in shape.items() if value is not None}
    documents = [{"_id": f"sample-{next(_numbers)}", "at": at, **shape} for _ in range(number)]
    UsageEvent._get_collection().insert_many(documents)
    mark_minutes([at])
