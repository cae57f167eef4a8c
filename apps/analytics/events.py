"""Events on their way: the request path appends to a Redis stream, a worker moves batches to ``usage_stats``."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, cast

import redis
import redis.asyncio
from pymongo import ReplaceOne

from apps.analytics.documents import UsageEvent
from apps.core.redis import redis_client

logger = logging.getLogger(__name__)

STREAM = "yt:events"
STREAM_MAX_LENGTH = 2_000_000  # about 0.5 GB; only reached when no worker has run for long
BATCH = 2000
FIELD = b"e"


async def append_event(client: redis.asyncio.Redis, event: dict[str, Any]) -> None:
    """Append one event, a JSON object without ``_id``. One Redis round trip; durable as far as Redis is.

    When Redis is away the event is lost and said in the log: an answer never waits for its own record for longer
    than the client's time limits.
    """
    try:
        await client.xadd(STREAM, {FIELD: json.dumps(event, separators=(",", ":"))}, maxlen=STREAM_MAX_LENGTH)
    except (redis.RedisError, OSError) as error:
        logger.warning("event lost", extra={"reason": type(error).__name__, "route": event["route"]})


def drain_events(*, max_batches: int = 50) -> int:
    """Move waiting events to MongoDB; return how many. Idempotent and safe to run twice at once.

    The entry id is the document's ``_id`` and the write replaces, so a batch that was written but not yet deleted
    (a worker killed in between) is written again to the same documents, not counted again.
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
        client.xdel(STREAM, *[entry_id for entry_id, _ in entries])
        moved += len(entries)
    return moved


def _document(entry_id: str, fields: dict[bytes, bytes]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(fields[FIELD])
    event["at"] = datetime.fromtimestamp(event.pop("at", time.time()), UTC)
    return {"_id": entry_id, **event}
