"""The Redis connections of this process: one pool for threads, one for the event loop."""

from __future__ import annotations

from functools import cache

import redis
import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

NOWHERE = "redis://127.0.0.1:1/0"  # not configured: every use fails at once with a clear error
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 256
RETRIES = 1  # for a connection that Redis closed meanwhile; the library's own ten tries would hold callers for seconds


@cache
def redis_client() -> redis.Redis:
    """The client for sync code. Thread-safe; connects at the first command.

    It does not close its pool when it goes: at the end of the process that would wait for ever for the pool's lock, if
    a thread that ended with the interpreter held it.
    """
    pool = redis.ConnectionPool.from_url(
        settings.SERVICES.redis_url or NOWHERE,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        max_connections=MAX_CONNECTIONS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), RETRIES),
    )
    return redis.Redis(connection_pool=pool)


def make_async_redis(
    *, retries: int = RETRIES, answer_timeout_s: float | None = ANSWER_TIMEOUT_S
) -> redis.asyncio.Redis:
    """A client for one event loop; the caller closes it. ``retries``: how often a command on a cut connection is sent
    again (0: the caller learns of every cut). ``answer_timeout_s`` None: the caller minds the time."""
    return redis.asyncio.Redis.from_url(
        settings.SERVICES.redis_url or NOWHERE,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=answer_timeout_s,
        max_connections=MAX_CONNECTIONS,
        health_check_interval=30,
        retry=AsyncRetry(NoBackoff(), retries),
    )
