"""Celery's settings. Redis only carries messages: the truth is in MongoDB, and a lost message is sent again by care."""

from __future__ import annotations

from celery.schedules import crontab
from django.conf import settings

from apps.core.redis import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S

broker_url = settings.SERVICES.redis_url or "redis://127.0.0.1:1/0"
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # Redis may be away for any time; the supervisor restarts it
broker_transport_options = {
    "visibility_timeout": 6 * 3600,
    "global_keyprefix": "yt:celery:",
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_timeout": ANSWER_TIMEOUT_S,  # a worker asks for messages for a second at a time
    "socket_keepalive": True,
}
task_ignore_result = True
task_default_queue = "care"
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
worker_hijack_root_logger = False
task_serializer = "json"
accept_content = ["json"]
timezone = "UTC"
task_routes = {
    "apps.downloads.tasks.resolve_info": {"queue": "resolve"},
    "apps.downloads.tasks.resolve_pictures": {"queue": "resolve"},
    "apps.downloads.tasks.look_up": {"queue": "resolve"},
    "apps.downloads.tasks.fetch_asset": {"queue": "fetch"},
    "apps.telegram_cache.tasks.upload_asset": {"queue": "upload"},
    "apps.telegram_cache.tasks.verify_asset": {"queue": "upload"},  # any number, each as long as an upload
    "apps.telegram_cache.tasks.verify_sample": {"queue": "upload"},  # long too: care must go on meanwhile
}
beat_schedule = {
    "sweep-jobs": {"task": "apps.downloads.tasks.sweep_jobs", "schedule": 5.0, "options": {"expires": 5}},
    "send-unsent": {"task": "apps.downloads.tasks.send_unsent", "schedule": 1.0, "options": {"expires": 1}},
    "deliver-webhooks": {"task": "apps.downloads.tasks.deliver_webhooks", "schedule": 5.0, "options": {"expires": 5}},
    "revive-batches": {"task": "apps.downloads.tasks.revive_batches", "schedule": 10.0, "options": {"expires": 10}},
    "warm-ups": {"task": "apps.downloads.tasks.advance_warm_ups", "schedule": 5.0, "options": {"expires": 5}},
    "sweep-uploads": {"task": "apps.telegram_cache.tasks.sweep_uploads", "schedule": 10.0, "options": {"expires": 10}},
    "refetch-lost": {"task": "apps.downloads.tasks.refetch_lost", "schedule": 30.0, "options": {"expires": 30}},
    "verify-sample": {
        "task": "apps.telegram_cache.tasks.verify_sample",
        "schedule": crontab(hour=4, minute=30),  # UTC
        "options": {"expires": 3600},
    },
    "evict-hot": {"task": "apps.telegram_cache.tasks.evict_hot", "schedule": 30.0, "options": {"expires": 30}},
    "drain-events": {"task": "apps.analytics.tasks.drain_events", "schedule": 2.0, "options": {"expires": 2}},
    "roll-up": {"task": "apps.analytics.tasks.roll_up", "schedule": 10.0, "options": {"expires": 10}},
    "track-users": {"task": "apps.analytics.tasks.track_users", "schedule": 5.0, "options": {"expires": 5}},
}
