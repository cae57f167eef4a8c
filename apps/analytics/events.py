"""Events on their way: the request path appends to a Redis stream, a worker moves batches to ``usage_stats``.

An event carries its own id, made where it happened, which becomes ``_id``: appending it twice (Redis cut the connection
before it answered) and moving it twice (a worker was killed in between) both give one document.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, cast

import orjson
from pymongo import ReplaceOne

from apps.analytics.documents import UsageEvent
from apps.analytics.rollup_marks import mark_minutes
from apps.core.redis import redis_client

logger = logging.getLogger(__name__)

STREAM = "yt:events"
STREAM_MAX_LENGTH = 2_000_000  # about 0.7 GB; only reached when no worker has run for long
BATCH = 2000
FIELD = b"e"


def event_payload(event: dict[str, Any]) -> str:
    """The event as it lies in the stream's FIELD."""
    return orjson.dumps(event).decode()


APPEND_WORDS = json.dumps(["XADD", STREAM, "MAXLEN", "~", str(STREAM_MAX_LENGTH), "*", FIELD.decode()])
"""The Redis command that appends an event, but for its payload, as scripts take it."""
# ARGV: APPEND_WORDS, then payloads. One command for many events: each of them would cost its sender several times more.
APPEND_SCRIPT = """
local append = cjson.decode(ARGV[1])
local words = #append
for number = 2, #ARGV do
  append[words + 1] = ARGV[number]
  redis.call(unpack(append))
end
return #ARGV - 1
"""
APPEND_SHA = hashlib.sha1(APPEND_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts by SHA-1


def drain_events(*, max_batches: int = 50) -> int:
    """Move waiting events to MongoDB; return how many. Idempotent and safe to run twice at once.

    The write replaces by ``_id``, so a batch that was written but not yet deleted (a worker killed in between) is
    written again to the same documents, not counted again.
    """
    client = redis_client()
    moved = 0
    for _ in range(max_batches):
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(STREAM, count=BATCH))
        if not entries:
            break
        documents = [_document(entry_id.decode(), fields) for entry_id, fields in entries]
        UsageEvent._get_collection().bulk_write(
            [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents], ordered=False
        )
        mark_minutes({document["at"] for document in documents})  # before the entries go: a crash between marks again
        client.xdel(STREAM, *[entry_id for entry_id, _ in entries])
        moved += len(entries)
    return moved


def _document(entry_id: str, fields: dict[bytes, bytes]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(fields[FIELD])
    event["at"] = datetime.fromtimestamp(event.pop("at", time.time()), UTC)
    return {"_id": event.pop("id", entry_id), **event}
