"""What was asked and what was answered: one document per request, and sums of them."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import mongoengine
from django.conf import settings
from mongoengine.fields import DateTimeField, FloatField, IntField, ListField, StringField
from pymongo.errors import OperationFailure

from apps.core.stored import StoredDocument

DAY_S = 86400
_INDEX_OPTIONS_CONFLICT = 85


class UsageEvent(StoredDocument):
    """One answered API call or one finished stream. ``_id`` is the id that the event was given where it happened."""

    id = StringField(primary_key=True)
    at = DateTimeField(required=True)  # when the answer ended
    key_prefix = StringField()
    route = StringField(required=True)
    method = StringField(required=True)
    status = IntField(required=True)  # 499: the client left before the answer was complete
    error = StringField()
    tier = StringField()  # hot, telegram, external
    video_id = StringField()
    asset_id = StringField()
    first_byte_s = FloatField()
    duration_s = FloatField(required=True)
    bytes_sent = IntField(required=True)

    meta = {
        "collection": "usage_stats",
        "indexes": [{"fields": ["at"], "expireAfterSeconds": settings.ENV.usage_kept_days * DAY_S}],
    }

    @classmethod
    def ensure_indexes(cls) -> None:
        """Make the indexes. When USAGE_KEPT_DAYS has changed, the one that ends events is changed in place."""
        try:
            super().ensure_indexes()
        except OperationFailure as error:
            if error.code != _INDEX_OPTIONS_CONFLICT:
                raise
            change = {"keyPattern": {"at": 1}, "expireAfterSeconds": settings.ENV.usage_kept_days * DAY_S}
            mongoengine.get_db().command("collMod", cls._get_collection_name(), index=change)
            super().ensure_indexes()


class Grain(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"  # of UTC

    @property
    def seconds(self) -> int:
        return {Grain.MINUTE: 60, Grain.HOUR: 3600, Grain.DAY: DAY_S}[self]


class By(StrEnum):
    """What a sum is of: everything, or the events that share one value."""

    ALL = "all"
    KEY = "key"
    ROUTE = "route"
    TIER = "tier"
    VIDEO = "video"
    ERROR = "error"  # the error's code; where there is none, the status
    FIRST_BYTE = "first_byte"  # the number of the bucket of apps.analytics.histogram


def kept_for(grain: Grain, by: By) -> timedelta:
    """How long sums live. Those by video are about as many as the events themselves, so the fine ones go earlier."""
    if grain is Grain.DAY:
        return timedelta(days=3 * 365)
    if by is By.VIDEO:
        return timedelta(days=2 if grain is Grain.MINUTE else 9)
    return timedelta(days=4 if grain is Grain.MINUTE else 400)


_SUMS = ["requests", "errors", "refused", "bytes_sent"]


class UsageRollup(StoredDocument):
    """A sum of events. ``_id`` is ``<grain>:<by>:<start>:<value>``, so that computing it again replaces it."""

    id = StringField(primary_key=True)
    grain = StringField(required=True, choices=[grain.value for grain in Grain])
    by = StringField(required=True, choices=[by.value for by in By])
    value = StringField(required=True)  # "" for By.ALL
    start = DateTimeField(required=True)
    requests = IntField(required=True)
    errors = IntField(required=True)  # status 5xx
    refused = IntField(required=True)  # status 4xx, clients that left included
    bytes_sent = IntField(required=True)
    expires_at = DateTimeField(required=True)

    meta = {
        "collection": "usage_rollups",
        "indexes": [
            {"fields": ["by", "grain", "start", "-requests", "value", *_SUMS[1:]]},  # both cover whole questions
            {"fields": ["value", "by", "grain", "start", *_SUMS]},  # value first: no choice for questions without one
            {"fields": ["expires_at"], "expireAfterSeconds": 0},
        ],
    }


class RollupMark(StoredDocument):
    """A stretch of time whose sums are out of date. ``revision`` grows with each batch of events that falls into it."""

    id = StringField(primary_key=True)  # <grain>:<start>
    grain = StringField(required=True, choices=[grain.value for grain in Grain])
    start = DateTimeField(required=True)
    revision = IntField(required=True)
    since = DateTimeField(required=True)

    meta = {"collection": "usage_rollup_marks", "indexes": [{"fields": ["grain", "since"]}]}


class RollupLease(StoredDocument):
    """Who computes sums now: one at a time, or an older sum could replace a newer one."""

    id = StringField(primary_key=True)
    owner = StringField(required=True)
    until = DateTimeField(required=True)

    meta = {"collection": "usage_rollup_lease"}


class ConcurrentUser(StoredDocument):
    """A key from an address that is active now. Gone ones are deleted, by the TTL index when nobody else does."""

    id = StringField(primary_key=True)  # <key prefix>:<address hash>
    key_prefix = StringField(required=True)  # "-": without a key
    address_hash = StringField(required=True)
    activities = ListField(StringField())  # api, stream, websocket
    since = DateTimeField(required=True)
    expires_at = DateTimeField(required=True)

    meta = {
        "collection": "concurrent_users",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class ConcurrentPeak(StoredDocument):
    """The most users that were active at once in a minute, and the most with each activity."""

    id = DateTimeField(primary_key=True)  # the minute's start
    users = IntField(required=True)
    api = IntField(required=True)
    stream = IntField(required=True)
    websocket = IntField(required=True)
    expires_at = DateTimeField(required=True)

    meta = {"collection": "concurrent_peaks", "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}]}
