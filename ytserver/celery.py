"""The Celery application: queues, routes and the beat schedule. Tasks live in each app's ``tasks.py``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from ytserver.heartbeat import Heartbeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")

app = Celery("ytserver")
app.config_from_object("ytserver.celery_config")
app.autodiscover_tasks()
app.steps["consumer"].add(Heartbeat)


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery sets up no handlers of its own when somebody answers this signal: they would write secrets unredacted."""
