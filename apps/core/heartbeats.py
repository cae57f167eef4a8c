"""The workers' signs of life in Redis, by which the web server knows which queue nobody works on."""

from __future__ import annotations

from collections.abc import Iterable

from apps.core.redis import redis_client

PREFIX = "yt:heartbeat:"
HOT_STORES = "yt:hot-stores"  # see apps.core.hot_names
INTERVAL_S = 5.0
LIFE_S = 15
QUEUES = ("resolve", "fetch", "upload", "care")
"""resolve: metadata, people wait for it. fetch: media. upload: to Telegram. care: periodic work."""


def beat(queues: Iterable[str]) -> None:
    """Say for each queue that somebody works on it, for the next LIFE_S seconds. Raises redis.RedisError."""
    with redis_client().pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.set(f"{PREFIX}{queue}", b"1", ex=LIFE_S)
        pipeline.execute()


def idle_queues() -> list[str]:
    """The queues that no worker has spoken for lately. Raises redis.RedisError."""
    values = redis_client().mget([f"{PREFIX}{queue}" for queue in QUEUES])
    return [queue for queue, value in zip(QUEUES, values, strict=True) if value is None]


def forget_beats() -> None:
    """Count nobody as alive until they speak again. For the start of an instance over its own Redis."""
    redis_client().delete(HOT_STORES, *(f"{PREFIX}{queue}" for queue in QUEUES))
