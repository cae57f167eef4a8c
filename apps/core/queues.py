"""Messages to the workers: sending one, and how many wait in Celery's queues."""

from __future__ import annotations

from redis.exceptions import RedisError

from apps.core.heartbeats import QUEUES
from apps.core.imports import import_celery
from apps.core.redis import redis_client

PREFIX = "yt:celery:"  # celery_config: global_keyprefix
SEPARATOR = "\x06\x16"
PRIORITIES = (0, 3, 6, 9)  # kombu's Redis transport keeps a list for each, the first without a number
SEND_ONCE_MORE = {"max_retries": 1, "interval_start": 0.1}


class NotSent(Exception):
    """Redis could not take a message. The text says why in a word."""


def send_task(name: str, *arguments: str, delay_s: float = 0, **options: int) -> None:
    """Have a worker carry out a task, in ``delay_s`` seconds at the earliest. ``options`` are Celery's own, such as
    ``priority``. Raises NotSent."""
    try:
        redis_client().ping()  # while Redis gives no answer, Celery's own connection would take 15 s to say so
    except RedisError as error:
        raise NotSent(type(error).__name__) from error
    app = import_celery()
    from celery.exceptions import OperationalError  # neither at the top nor before: see apps.core.imports

    try:
        app.send_task(name, list(arguments), countdown=delay_s or None, retry_policy=SEND_ONCE_MORE, **options)
    except OperationalError as error:
        raise NotSent(type(error.__cause__ or error).__name__) from error


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
