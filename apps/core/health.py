"""Whether this process lives, and whether the server is ready: every part is named, with short time limits."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import mongoengine
import pymongo
import redis
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from pymongo.errors import PyMongoError

from apps.core.errors import NotReady, error_body
from apps.core.heartbeats import idle_queues
from apps.core.logs import request_id_var
from apps.core.outages import trouble_of
from apps.core.redis import ping_redis, redis_client
from apps.core.room import MIB, room_of

CHECK_TIMEOUT_S = 2.0
STRAGGLER_S = 1.0  # for checks that end a little after their own time limit
REMEMBERED_S = 1.0  # of many simultaneous questions one looks


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """``down``: parts without which requests fail. ``idle_queues``: work nobody does; cached answers go on."""

    down: dict[str, str]
    idle_queues: list[str]


def _mongodb_problem() -> str | None:
    try:
        with pymongo.timeout(CHECK_TIMEOUT_S):
            mongoengine.get_db().command("ping")
    except (PyMongoError, mongoengine.ConnectionFailure) as error:
        return trouble_of("MongoDB", error)
    return None


def _redis_problem() -> str | None:
    """One that takes nothing more is a problem only where keys get no answer then (``deny``): else what is known is
    answered, limits are counted in each process, and only new files fail."""
    try:
        ping_redis(timeout_s=CHECK_TIMEOUT_S)
        if settings.ENV.limits_on_redis_loss == "deny":
            redis_client().set("yt:readyz", "1", ex=1)
    except redis.RedisError as error:
        return trouble_of("Redis", error)
    return None


def _hot_store_problem() -> str | None:
    root = settings.ENV.hot_root
    try:
        root.mkdir(parents=True, exist_ok=True)
        room = room_of(root)
        if room.is_full:
            return f"its disk is full, {room.free_bytes / MIB:.1f} MiB are free"
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(b"1")
    except OSError as error:
        return f"cannot be written ({os.strerror(error.errno or 0)})"
    return None


CHECKS: dict[str, Callable[[], str | None]] = {
    "mongodb": _mongodb_problem,
    "redis": _redis_problem,
    "hot_store": _hot_store_problem,
}


class _Checker:
    """Looks at every part at once, each with its time limit, and remembers what it saw for REMEMBERED_S."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen_at = float("-inf")
        self._seen: Readiness | None = None
        self._looking: dict[str, Future[str | None]] = {}

    def readiness(self) -> Readiness:
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen_at >= REMEMBERED_S:
                self._seen = self._look()
                self._seen_at = time.monotonic()
            return self._seen

    def _look(self) -> Readiness:
        pool = ThreadPoolExecutor(max_workers=len(CHECKS), thread_name_prefix="health")
        for name, check in CHECKS.items():
            if name not in self._looking or self._looking[name].done():  # one that hangs takes no second thread
                self._looking[name] = pool.submit(check)
        pool.shutdown(wait=False)
        deadline = time.monotonic() + CHECK_TIMEOUT_S + STRAGGLER_S
        down: dict[str, str] = {}
        for name, future in self._looking.items():
            try:
                problem = future.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:  # a disk that hangs, or a name that is not resolved
                problem = "takes too long"
            if problem is not None:
                down[name] = problem
        return Readiness(down=down, idle_queues=[] if "redis" in down else _idle_queues())


def _idle_queues() -> list[str]:
    with contextlib.suppress(redis.RedisError):
        return idle_queues()
    return []


_checker = _Checker()


def healthz(request: HttpRequest) -> JsonResponse:
    """This process answers."""
    return JsonResponse({"status": True})


def readyz(request: HttpRequest) -> JsonResponse:
    """Whether requests can be served: 503 names what is down. Idle queues are told, but do not fail it."""
    seen = _checker.readiness()
    if not seen.down:
        return JsonResponse({"status": True, "down": {}, "idle_queues": seen.idle_queues})
    error = NotReady(f"Down: {', '.join(seen.down)}.", down=seen.down, idle_queues=seen.idle_queues)
    return JsonResponse(error_body(error, request_id=request_id_var.get()), status=error.status)
