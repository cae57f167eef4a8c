"""The Celery application: queues, routes and the beat schedule. Tasks live in each app's ``tasks.py``."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")

QUEUES = ("resolve", "fetch", "upload", "care")
"""resolve: metadata, people wait for it. fetch: media. upload: to Telegram. care: periodic work."""

app = Celery("ytserver")
app.config_from_object("ytserver.celery_config")
app.autodiscover_tasks()
