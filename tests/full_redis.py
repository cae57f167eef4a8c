"""A Redis that has used all the memory that it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from apps.core.redis import redis_client


@contextmanager
def full_redis() -> Iterator[redis.Redis]:
    """The real one answers, and takes nothing more until the block ends."""
    redis_client().config_set("maxmemory", 1)
    try:
        yield redis_client()
    finally:
        redis_client().config_set("maxmemory", 0)
