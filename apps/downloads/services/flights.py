"""Questions to the outside that any number of callers ask and one process answers: one task, one lock, one record."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.conf import settings
from redis.exceptions import RedisError

from apps.core.asker import asker_var
from apps.core.errors import NotReady, Overloaded
from apps.core.owners import is_owner_dead, make_owner
from apps.core.queues import NotSent, send_task
from apps.core.redis import redis_client
from apps.core.wake import publish
from apps.downloads.services.question_lanes import KeyFull, Lane, leave_lane, take_lane

log = structlog.get_logger(__name__)

RESOLVE_QUEUE = "yt:celery:resolve"  # celery_config: global_keyprefix and the queue's name
MAX_WAITING = 2000
OVERLOAD_RETRY_S = 10.0
NOT_SENT_RETRY_S = 2.0
LOCK_S = 30  # longer than an answer can take
PATIENT = "yt:flights:patient"  # questions of lists that are on their way; score: since when, by Redis's clock

_TAKE_PLACE = """
local now = tonumber(redis.call('time')[1])
redis.call('zremrangebyscore', KEYS[1], '-inf', now - ARGV[2])
if redis.call('zscore', KEYS[1], ARGV[1]) then return 0 end
if redis.call('zcard', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('zadd', KEYS[1], now, ARGV[1])
return 1
"""

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One question. ``kind`` and ``name`` identify it; ``task`` with ``arguments`` is what answers it."""

    kind: str
    name: str
    task: str
    arguments: tuple[str, ...]

    @property
    def topic(self) -> str:
        """What is published once there is an answer."""
        return f"{self.kind}:{self.name}"

    def request(self, *, patient: bool = False) -> None:
        """See to it that somebody answers. Cheap to call again and again while waiting.

        Any number of callers on any number of machines send one task; one that gets lost is sent again by a later
        call. Raises Overloaded when too many questions wait already, of all keys or of this one (``asker_var``): a few
        of each key go first, its others behind those of all keys; and NotReady when Redis takes no message. Does
        nothing for nobody in particular.

        ``patient``: nobody waits for this answer right now. Such questions hold half of a worker's threads at most, and
        stand behind all others; when no place is free this call does nothing, so call again.
        """
        redis = redis_client()
        if _is_held(redis.get(self._lock_name)):
            return
        if patient:
            places = max(1, settings.ENV.worker_threads // 2)
            if redis.eval(_TAKE_PLACE, 1, PATIENT, self.topic, LOCK_S, places):
                self._send(Lane.LAST)
            return
        prefix = asker_var.get()
        if prefix is None:
            return
        try:
            lane = take_lane(self.kind, self.name, prefix=prefix)
        except KeyFull:
            text = "This API key waits for as many answers of the sources as it may at once."
            raise Overloaded(text, retry_after_s=OVERLOAD_RETRY_S) from None
        if lane is None:
            return
        if int(redis.llen(queue_of(lane))) >= MAX_WAITING:
            leave_lane(self.kind, self.name)
            raise Overloaded(retry_after_s=OVERLOAD_RETRY_S)
        if not self._send(lane):
            leave_lane(self.kind, self.name)
            raise NotReady(retry_after_s=NOT_SENT_RETRY_S)

    def renew(self, *, patient: bool = False) -> None:
        """As ``request``, for callers that have an answer already: a newer one can wait, so nothing is raised when too
        many questions wait or Redis is away. A look for nobody in particular renews too, behind what anybody waits for.
        """
        try:
            self.request(patient=patient or asker_var.get() is None)
        except (Overloaded, NotReady, RedisError) as error:
            log.warning("aged answer not renewed", kind=self.kind, name=self.name, reason=type(error).__name__)

    def _send(self, lane: Lane) -> bool:
        try:
            send_task(self.task, *self.arguments, priority=lane.value)
        except NotSent as error:
            log.warning("task not sent", kind=self.kind, reason=str(error))
            return False
        return True

    @contextmanager
    def lead(self) -> Iterator[bool]:
        """Whether the caller is the one that asks now. Whoever was announces the end to all who wait."""
        lock = self._take_lock()
        try:
            yield lock is not None
        finally:
            if lock is not None:
                redis = redis_client()
                redis.eval(_RELEASE, 1, self._lock_name, lock)
                leave_lane(self.kind, self.name)
                redis.zrem(PATIENT, self.topic)
        if lock is not None:
            publish(self.topic)

    @property
    def _lock_name(self) -> str:
        return _lock_name(self.kind, self.name)

    def _take_lock(self) -> str | None:
        """Become the one that asks, or None. The lock of a dead process on this machine is taken over at once."""
        redis = redis_client()
        lock = f"{make_owner()}:{secrets.token_hex(8)}"
        if redis.set(self._lock_name, lock, nx=True, ex=LOCK_S):
            return lock
        holder = redis.get(self._lock_name)
        if _is_held(holder):
            return None
        if holder is not None:
            redis.eval(_RELEASE, 1, self._lock_name, holder)
        return lock if redis.set(self._lock_name, lock, nx=True, ex=LOCK_S) else None


def queue_of(lane: Lane) -> str:
    """Where the messages of a lane wait: kombu keeps a list for each priority."""
    return f"{RESOLVE_QUEUE}\x06\x16{lane.value}" if lane else RESOLVE_QUEUE


def is_being_asked(topic: str) -> bool:
    """Whether a patient question (``Flight.topic``) has its place by now, or somebody asks it. Until then it only waits
    for its turn."""
    kind, _, name = topic.partition(":")
    redis = redis_client()
    return redis.zscore(PATIENT, topic) is not None or bool(redis.exists(_lock_name(kind, name)))


def _lock_name(kind: str, name: str) -> str:
    return f"yt:{kind}:lock:{name}"


def _is_held(holder: bytes | str | None) -> bool:
    return holder is not None and not is_owner_dead(holder.decode() if isinstance(holder, bytes) else holder)
