"""How the sources are doing, gathered from every process in Redis: for people to look at, nothing decides by it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError

from apps.core.owners import make_owner
from apps.core.redis import redis_client

KEPT_S = 7 * 86400

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProviderHealth:
    """Counts of the last days. ``paused_until``: in how many processes it is left alone, and until when (seconds)."""

    answers: int = 0
    failures: int = 0
    last_answer_at: float | None = None
    last_failure_at: float | None = None
    last_error: str = ""
    last_took_s: float | None = None
    paused_until: tuple[float, ...] = ()


def note_outcome(name: str, *, error_code: str, took_s: float, pause_s: float | None = None) -> None:
    """Count one answer (no ``error_code``) or failure; ``pause_s``: this process leaves the source alone so long."""
    now = time.time()
    key, paused = _key(name), f"{_key(name)}:paused"
    try:
        with redis_client().pipeline(transaction=False) as pipe:
            if error_code:
                pipe.hincrby(key, "failures", 1)
                pipe.hset(key, mapping={"last_failure_at": now, "last_error": error_code, "last_took_s": took_s})
            else:
                pipe.hincrby(key, "answers", 1)
                pipe.hset(key, mapping={"last_answer_at": now, "last_took_s": took_s})
            if pause_s is not None:
                pipe.hset(paused, make_owner(), now + pause_s)
                pipe.expire(paused, KEPT_S)
            elif not error_code:
                pipe.hdel(paused, make_owner())
            pipe.expire(key, KEPT_S)
            pipe.execute()
    except RedisError as error:
        log.warning("health of a source not noted", reason=type(error).__name__)


def read_health(name: str) -> ProviderHealth:
    """What all processes said. Raises what Redis raises."""
    redis: Any = redis_client()
    said = {field.decode(): value.decode() for field, value in redis.hgetall(_key(name)).items()}
    ends = [float(value) for value in redis.hvals(f"{_key(name)}:paused")]
    times = {
        field: float(said[field]) for field in ("last_answer_at", "last_failure_at", "last_took_s") if field in said
    }
    return ProviderHealth(
        answers=int(said.get("answers", 0)),
        failures=int(said.get("failures", 0)),
        last_error=said.get("last_error", ""),
        paused_until=tuple(sorted(end for end in ends if end > time.time())),
        **times,
    )


def _key(name: str) -> str:
    return f"yt:provider:{name}"
