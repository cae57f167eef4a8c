"""The part of a Celery worker that says when periodic work is due: Celery's beat as a thread, with ``--clock``.

A process of its own would cost a second of start and 100 MB more. Give it to one worker of an installation only.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from celery import bootsteps
from celery.beat import Service

log = logging.getLogger(__name__)
LONGEST_SLEEP_S = 1.0  # so that the thread ends soon after the worker was told to


class Clock(bootsteps.StartStopStep):
    """Runs beside the worker's own threads. When it fails, the worker ends with it, and is started again."""

    def __init__(self, worker: Any, clock: bool = False, **options: Any) -> None:
        super().__init__(worker, **options)
        self.enabled = clock
        self._service: Any = None
        self._stopping = False

    def start(self, worker: Any) -> None:
        self._service = Service(
            worker.app, max_interval=LONGEST_SLEEP_S, schedule_filename=worker.schedule_filename, remote_control=False
        )
        threading.Thread(target=self._run, args=(worker.app,), name="clock", daemon=True).start()

    def stop(self, worker: Any) -> None:
        self._stopping = True
        if self._service is not None:
            self._service.stop(wait=False)

    def terminate(self, worker: Any) -> None:
        self.stop(worker)

    def _run(self, app: Any) -> None:
        app.set_current()  # of this thread
        try:
            self._service.start()
        except Exception:  # whatever it is: without a clock nothing periodic would be done any more
            log.exception("the clock has failed")
        if not self._stopping:
            os.kill(os.getpid(), signal.SIGTERM)
