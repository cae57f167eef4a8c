"""The Redis connections of this process: one pool for threads, one for the event loop.

A Redis that takes messages and never answers (a network that loses everything) would hold up each call for seconds, and
a request makes several. So after one time-out the calls of threads fail at once, until a PING is answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import redis
import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

NOWHERE = "redis://127.0.0.1:1/0"  # not configured: every use fails at once with a clear error
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.25
MAX_CONNECTIONS = 256
RETRIES = 1  # for a connection that Redis closed meanwhile; the library's own ten tries would hold callers for seconds


class _Gate(Retry):
    """How the calls of threads are tried: a cut connection once more, a time-out never, and while Redis is silent not
    at all. Its connections share it."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), RETRIES, supported_errors=(redis.ConnectionError,))
        self._lock = threading.Lock()
        self.is_silent = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def call_with_retry(self, do: Callable[[], Any], *arguments: Any, **options: Any) -> Any:
        if self.is_silent:
            raise redis.ConnectionError("Redis did not answer a moment ago")
        try:
            return super().call_with_retry(do, *arguments, **options)
        except redis.TimeoutError:
            self._note_silence()
            raise

    def _note_silence(self) -> None:
        with self._lock:
            if not self.is_silent:
                threading.Thread(target=self._wait_for_answer, name="redis-probe", daemon=True).start()
                self.is_silent = True  # only where a thread runs that ends it

    def _wait_for_answer(self) -> None:
        """Whatever is no silence ends it, also a refused connection: callers learn that without waiting."""
        try:
            while self._gives_no_answer():
                time.sleep(PROBE_EVERY_S)
        finally:
            with self._lock:
                self.is_silent = False

    def _gives_no_answer(self) -> bool:
        try:
            ping_redis(timeout_s=PROBE_TIMEOUT_S)
        except redis.RedisError as error:
            return isinstance(error, redis.TimeoutError)
        return False


@cache
def _gate() -> _Gate:
    return _Gate()


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
        retry=_gate(),
    )
    return redis.Redis(connection_pool=pool)


def ping_redis(*, timeout_s: float) -> None:
    """Ask once, past the gate, over a connection of its own. ``timeout_s`` holds for connecting, and for the answer.

    Raises redis.RedisError."""
    client = redis.Redis.from_url(
        settings.SERVICES.redis_url or NOWHERE,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        client.ping()


def make_async_redis(
    *, retries: int = RETRIES, answer_timeout_s: float | None = ANSWER_TIMEOUT_S
) -> redis.asyncio.Redis:
    """A client for one event loop; the caller closes it. ``retries``: how often a command on a cut connection is sent
    again (0: the caller learns of every cut); what got no answer in time is not. ``answer_timeout_s`` None: the caller
    minds the time."""
    return redis.asyncio.Redis.from_url(
        settings.SERVICES.redis_url or NOWHERE,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=answer_timeout_s,
        max_connections=MAX_CONNECTIONS,
        health_check_interval=30,
        retry=AsyncRetry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
    )
