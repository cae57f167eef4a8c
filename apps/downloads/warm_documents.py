"""Warm-ups: lists that are fetched ahead of time, in quiet hours, and the limits for that."""

from __future__ import annotations

from enum import StrEnum

from mongoengine.fields import BooleanField, DateTimeField, DictField, IntField, LongField, StringField

from apps.core.clock import utcnow
from apps.core.stored import StoredDocument
from apps.downloads.ids import new_job_id

KEPT_S = 90 * 86400


class WarmState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class WarmEntryState(StrEnum):
    WAITING = "waiting"
    FETCHING = "fetching"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WarmUp(StoredDocument):
    """One list. What is in it are its entries; a playlist is read page by page first (``reading``)."""

    id = StringField(primary_key=True, default=new_job_id)
    name = StringField(required=True, max_length=100)
    kind = StringField(required=True)
    wish = StringField()
    options = DictField()  # apps.downloads.variants.MediaOptions, what differs from its defaults
    any_hour = BooleanField(default=False)  # begins now, not in quiet hours
    state = StringField(choices=[state.value for state in WarmState], default=WarmState.RUNNING.value)
    total = IntField(default=0)  # entries
    counts = DictField()  # of its entries by state, once it is over and none of them changes any more
    playlist_id = StringField()
    reading = BooleanField(default=False)
    pages_read = IntField(default=0)
    truncated = BooleanField(default=False)
    problem = StringField()  # why a playlist could not be read
    created_by = StringField(default="")
    created_at = DateTimeField(default=utcnow)
    finished_at = DateTimeField()

    meta = {
        "collection": "warm_ups",
        "indexes": [
            {"fields": ["state", "created_at"]},
            {"fields": ["-created_at", "-_id"]},
            {"fields": ["created_at"], "expireAfterSeconds": KEPT_S},
        ],
    }


class WarmUpEntry(StoredDocument):
    """One file of a warm-up. ``_id`` is "<warm-up>:<number>"."""

    id = StringField(primary_key=True)
    warm_up_id = StringField(required=True)
    number = IntField(required=True)
    link = StringField(required=True)
    video_id = StringField()
    state = StringField(choices=[state.value for state in WarmEntryState], default=WarmEntryState.WAITING.value)
    not_before = DateTimeField()  # after a failure that may pass
    tries = IntField(default=0)
    asked_at = DateTimeField()  # since when the sources are asked what it is
    started_at = DateTimeField()  # of its fetch; None when the file was there already
    ended_at = DateTimeField()
    asset_id = StringField()
    job_id = StringField()
    size_bytes = LongField()
    error_code = StringField()
    error_message = StringField()
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "warm_up_entries",
        "indexes": [
            {"fields": ["warm_up_id", "state", "number", "_id"]},
            {"fields": ["warm_up_id", "state", "not_before", "number"]},
            {"fields": ["state", "number"]},
            {"fields": ["started_at", "size_bytes"]},
            {"fields": ["job_id"]},
            {"fields": ["created_at"], "expireAfterSeconds": KEPT_S},
        ],
    }


class WarmUpLimits(StoredDocument):
    """When and how much is fetched ahead, over all warm-ups. There is one of these; its defaults hold until somebody
    saves others."""

    id = StringField(primary_key=True, default="limits")
    quiet_from = StringField(default="01:00")
    quiet_until = StringField(default="06:00")  # the same as quiet_from: at any hour
    time_zone = StringField(default="UTC")
    at_once = IntField(default=2)
    max_per_hour = IntField(default=120)
    max_bytes_per_day = LongField(default=20 * 1024**3)
    updated_at = DateTimeField(default=utcnow)

    meta = {"collection": "warm_up_limits", "indexes": []}
