"""How the sources are doing, gathered from every process in Redis: for people to look at, nothing decides by it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError

from apps.core.owners import is_owner_dead, make_owner
from apps.core.redis import redis_client

KEPT_S = 7 * 86400
KEPT_ERRORS = 10
FORGOTTEN_S = 86400.0  # a process of another machine that has been silent for so long is taken to be gone

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProviderHealth:
    """Counts of the last days, and what the circuit breakers of all processes say.

    ``paused_until``: open, one entry for each process that leaves it alone, until when (seconds). ``half_open``: in how
    many processes the pause is over and the next question is a trial. ``on_trial``: in how many that trial runs now.
    ``recent_errors``: newest first, each with ``at`` (seconds), ``code``, ``message`` and ``took_s``.
    """

    answers: int = 0
    failures: int = 0
    last_answer_at: float | None = None
    last_failure_at: float | None = None
    last_error: str = ""
    last_took_s: float | None = None
    paused_until: tuple[float, ...] = ()
    half_open: int = 0
    on_trial: int = 0
    recent_errors: tuple[dict[str, Any], ...] = ()

    @property
    def circuit(self) -> str:
        """closed, open or half_open, over all processes: what most deserves a look."""
        return "open" if self.paused_until else "half_open" if self.half_open or self.on_trial else "closed"


def note_outcome(
    name: str, *, error_code: str, took_s: float, error_message: str = "", pause_s: float | None = None
) -> None:
    """Count one answer (no ``error_code``) or failure; ``pause_s``: this process leaves the source alone so long."""
    now = time.time()
    key, paused = _key(name), f"{_key(name)}:paused"
    try:
        with redis_client().pipeline(transaction=False) as pipe:
            if error_code:
                pipe.hincrby(key, "failures", 1)
                pipe.hset(key, mapping={"last_failure_at": now, "last_error": error_code, "last_took_s": took_s})
                error = {"at": now, "code": error_code, "message": error_message[:300], "took_s": round(took_s, 3)}
                pipe.lpush(f"{key}:errors", json.dumps(error))
                pipe.ltrim(f"{key}:errors", 0, KEPT_ERRORS - 1)
                pipe.expire(f"{key}:errors", KEPT_S)
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


def note_trial(name: str, *, lasts_s: float) -> None:
    """This process tries a source again that it left alone."""
    now = time.time()
    try:
        redis_client().hset(f"{_key(name)}:paused", make_owner(), f"{now} {now + lasts_s}")
    except RedisError as error:
        log.warning("trial of a source not noted", reason=type(error).__name__)


def note_closed(name: str) -> None:
    """This process uses the source again. (An answer says so too.)"""
    try:
        redis_client().hdel(f"{_key(name)}:paused", make_owner())
    except RedisError as error:
        log.warning("health of a source not noted", reason=type(error).__name__)


def read_health(name: str) -> ProviderHealth:
    """What all processes said. Raises what Redis raises."""
    redis: Any = redis_client()
    said = {field.decode(): value.decode() for field, value in redis.hgetall(_key(name)).items()}
    now = time.time()
    breakers = {owner.decode(): value.decode() for owner, value in redis.hgetall(f"{_key(name)}:paused").items()}
    pauses = [_read_pause(value) for owner, value in breakers.items() if not is_owner_dead(owner)]
    pauses = [(until, trial) for until, trial in pauses if until > now - FORGOTTEN_S]
    errors = [json.loads(text) for text in redis.lrange(f"{_key(name)}:errors", 0, KEPT_ERRORS - 1)]
    times = {
        field: float(said[field]) for field in ("last_answer_at", "last_failure_at", "last_took_s") if field in said
    }
    return ProviderHealth(
        answers=int(said.get("answers", 0)),
        failures=int(said.get("failures", 0)),
        last_error=said.get("last_error", ""),
        paused_until=tuple(sorted(until for until, _ in pauses if until > now)),
        half_open=sum(until <= now and trial <= now for until, trial in pauses),
        on_trial=sum(trial > now for _, trial in pauses),
        recent_errors=tuple(errors),
        **times,
    )


def _read_pause(value: str) -> tuple[float, float]:
    """Until when a process leaves the source alone, and until when its trial counts (0: none runs)."""
    until, _, trial = value.partition(" ")
    return float(until), float(trial or 0)


def _key(name: str) -> str:
    return f"yt:provider:{name}"
