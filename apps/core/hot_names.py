"""Which hot store a process sees: each has a name, a file in its folder, and the workers tell theirs in Redis.

Who sees another folder than they do cannot know which files are there: that a file is not in its own means nothing.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import Any

from django.conf import settings
from redis import RedisError

from apps.core.heartbeats import HOT_STORES, LIFE_S
from apps.core.redis import redis_client
from ytserver.private_files import kept_secret

NAME_FILE = ".name"
EVICTED_FILE = ".evicted"
QUEUES_WITH_FILES = frozenset({"fetch", "upload", "care"})


def hot_store_name() -> str:
    """Made when the store has none yet. Raises OSError."""
    root = settings.ENV.hot_root
    root.mkdir(parents=True, exist_ok=True)
    return kept_secret(root / NAME_FILE, lambda: uuid.uuid4().hex)


def tell_hot_store() -> None:
    """Say that a worker uses this process's hot store, for the next LIFE_S seconds. Raises RedisError, OSError."""
    client = redis_client()
    now = client.time()[0]
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zadd(HOT_STORES, {hot_store_name(): now})
        pipeline.zremrangebyscore(HOT_STORES, "-inf", now - LIFE_S)
        pipeline.execute()


def hot_stores_of_workers() -> set[str]:
    """The names that workers told lately. Raises RedisError."""
    client = redis_client()
    names: Any = client.zrangebyscore(HOT_STORES, f"({client.time()[0] - LIFE_S}", "+inf")
    return {name.decode() for name in names}


def note_eviction() -> None:
    """Say that all of this hot store was looked through for files that have to leave it. A full disk is no reason to
    raise."""
    with suppress(OSError):
        (settings.ENV.hot_root / EVICTED_FILE).touch()


def since_eviction_s() -> float | None:
    """Seconds since that was said last, by whomever; None: never. Raises OSError."""
    try:
        at: float = (settings.ENV.hot_root / EVICTED_FILE).stat().st_mtime
    except FileNotFoundError:
        return None
    return max(0.0, time.time() - at)


def sees_hot_store_of_workers() -> bool:
    """Whether workers use this process's hot store. Also true while nobody says what they use."""
    try:
        stores = hot_stores_of_workers()
        return not stores or hot_store_name() in stores
    except (RedisError, OSError):
        return True
