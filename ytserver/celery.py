"""The Celery application: queues, routes and the beat schedule. Tasks live in each app's ``tasks.py``."""

from __future__ import annotations

import os

from celery import Celery

from ytserver.heartbeat import Heartbeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")

app = Celery("ytserver")
app.config_from_object("ytserver.celery_config")
app.autodiscover_tasks()
app.steps["consumer"].add(Heartbeat)
