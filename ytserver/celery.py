"""The Celery application: queues, routes and the beat schedule. Tasks live in each app's ``tasks.py``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from click import Option

from ytserver.clock import Clock
from ytserver.heartbeat import Heartbeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")

app = Celery("ytserver")
app.config_from_object("ytserver.celery_config")
app.autodiscover_tasks()
app.steps["consumer"].add(Heartbeat)
app.steps["worker"].add(Clock)
app.user_options["worker"].add(Option(["--clock"], is_flag=True, help="say when periodic work is due (one worker)"))


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery sets up no handlers of its own when somebody answers this signal: they would write secrets unredacted."""
