"""The part of a Celery worker that says, every few seconds, which queues it works on and how its machine is doing."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from celery import bootsteps
from redis import RedisError

from apps.core.heartbeats import INTERVAL_S, beat
from apps.core.hot_names import QUEUES_WITH_FILES, tell_hot_store
from apps.core.machines import forget_machine, report_machine

log = logging.getLogger(__name__)


class Heartbeat(bootsteps.StartStopStep):
    """Beats only while the worker's consumer is connected and takes tasks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        queues = list(consumer.app.amqp.queues.consume_from)
        self._timer = consumer.timer.call_repeatedly(INTERVAL_S, _try_beat, (queues,))
        _try_beat(queues)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            with suppress(RedisError):
                forget_machine()


def _try_beat(queues: list[str]) -> None:
    try:
        say_alive(queues)
        report_machine()
    except (RedisError, OSError) as error:  # Redis or the disk is away for a while: the next beat is soon
        log.warning("no heartbeat could be sent (%s)", type(error).__name__)


def say_alive(queues: list[str]) -> None:
    """Once. Raises RedisError, OSError."""
    beat(queues)
    if not QUEUES_WITH_FILES.isdisjoint(queues):
        tell_hot_store()
