"""How many messages wait in Celery's queues."""

from __future__ import annotations

from apps.core.heartbeats import QUEUES
from apps.core.redis import redis_client

PREFIX = "yt:celery:"  # celery_config: global_keyprefix
SEPARATOR = "\x06\x16"
PRIORITIES = (0, 3, 6, 9)  # kombu's Redis transport keeps a list for each, the first without a number


def waiting_messages() -> dict[str, int]:
    """The messages of every queue that no worker has taken, of all priorities. Raises redis.RedisError."""
    pipeline = redis_client().pipeline(transaction=False)
    for queue in QUEUES:
        for priority in PRIORITIES:
            pipeline.llen(list_name(queue, priority))
    lengths = [int(length) for length in pipeline.execute()]
    width = len(PRIORITIES)
    return {queue: sum(lengths[at * width : (at + 1) * width]) for at, queue in enumerate(QUEUES)}


def list_name(queue: str, priority: int) -> str:
    """The Redis list in which a queue's messages of one of PRIORITIES lie."""
    return f"{PREFIX}{queue}{SEPARATOR}{priority}" if priority else f"{PREFIX}{queue}"
