"""What was asked and what was answered: one document per request."""

from __future__ import annotations

from mongoengine.fields import DateTimeField, FloatField, IntField, StringField

from apps.core.stored import StoredDocument

KEPT_S = 90 * 86400


class UsageEvent(StoredDocument):
    """One answered API call or one finished stream. ``_id`` is the entry id of the Redis stream it came through."""

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
        "indexes": [
            {"fields": ["at"], "expireAfterSeconds": KEPT_S},
            {"fields": ["key_prefix", "-at"]},
            {"fields": ["video_id", "-at"]},
        ],
    }
