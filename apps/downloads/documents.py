"""Metadata of videos, and the jobs that fetch them."""

from __future__ import annotations

import secrets
from enum import StrEnum

from mongoengine.fields import BooleanField, DateTimeField, DictField, FloatField, IntField, ListField, StringField

from apps.core.clock import utcnow
from apps.core.encrypted import EncryptedField
from apps.core.stored import StoredDocument
from apps.downloads import warm_documents as warm_documents  # so that ensure_indexes finds those as well
from apps.downloads.ids import new_job_id


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobPriority(StrEnum):
    """Interactive: somebody waits for it now. Batch: lists and warm-ups, which give way."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class MediaJob(StoredDocument):
    """One fetch of one asset, running or finished. At most one job of an asset is ``active`` (unique index)."""

    id = StringField(primary_key=True, default=new_job_id)
    asset_id = StringField(required=True)
    video_id = StringField(required=True)
    kind = StringField(required=True)
    variant = StringField(required=True)
    state = StringField(required=True, choices=[state.value for state in JobState], default=JobState.QUEUED.value)
    active = BooleanField(default=True)
    stage = StringField(default="queued")  # queued, connecting, downloading, muxing, checking, done
    bytes_done = IntField(default=0)
    bytes_total = IntField()
    size_at_least = IntField()  # of the finished file, as far as is known by now
    speed_bytes_per_s = FloatField()
    eta_s = FloatField()
    error_code = StringField()
    error_message = StringField()
    attempts = IntField(default=0)
    failures = IntField(default=0)  # attempts that failed for a passing reason, so that it went back in line
    room_waits = IntField(default=0)  # how often it went back in line because the disk was full, or for EarlierFetch
    full_in_a_row = IntField(default=0)  # of its last tries: how many found the disk full
    needs_free_bytes = IntField()  # of the disk, for a job that waits for room: before, nobody outside is asked again
    in_attempt = BooleanField(default=False)  # still so when the next attempt begins: the worker died in this one
    crashes = IntField(default=0)  # attempts in a row in which the worker died, and no new byte had come
    crashed_at_bytes = IntField()  # the most bytes that there were at such an end
    provider = StringField()
    provider_took_s = FloatField()  # the source that served it, from being asked to the finished file
    measured_quality = StringField()  # the variant that the finished file is; None until it is there
    provider_errors = ListField(DictField())  # [{provider, code, message, took_s, attempt}] of those that failed
    key_prefix = StringField()  # who asked first
    joined_by = ListField(StringField())  # other keys that wait for it too, and so may see it
    asked_by = ListField(StringField())  # of all these, the keys that asked for it by itself, not only in a batch
    left_by = ListField(StringField())  # of all these, the keys that cancelled: they still see it, but do not wait
    too_large_for = ListField(StringField())  # and those that may not have so large a file: for them it has failed
    priority = StringField(choices=[priority.value for priority in JobPriority], default=JobPriority.INTERACTIVE.value)
    clip = BooleanField()  # True: only a stretch of the video
    turn = IntField(default=0)  # place among the waiting jobs of its priority: lowest first (services/queue.py)
    moved_up_by = StringField()  # the key whose turn it has, when that is not the key that asked first
    not_before = DateTimeField()  # is not picked before then
    unsent = BooleanField()  # True: its message could not be sent
    resume = DictField()  # what a later attempt needs to go on from the bytes it has
    retry_at = DateTimeField()
    announced = BooleanField()  # False from its end until its keys' webhooks are noted; the sweep finds what stays so
    created_at = DateTimeField(default=utcnow)
    started_at = DateTimeField()
    finished_at = DateTimeField()
    updated_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "media_jobs",
        "indexes": [
            {"fields": ["asset_id"], "unique": True, "partialFilterExpression": {"active": True}},
            {"fields": ["asset_id", "-created_at"]},
            {"fields": ["active", "updated_at"]},
            {"fields": ["key_prefix", "-created_at"]},
            {"fields": ["video_id", "-created_at"]},
            {"fields": ["-created_at", "-_id"]},
            {"fields": ["-finished_at", "-_id"]},
            {"fields": ["joined_by", "-created_at"]},
            {"fields": ["state", "kind", "-created_at", "-_id"]},
            {"fields": ["key_prefix", "state", "-created_at"]},
            {"fields": ["joined_by", "state", "-created_at"]},
            {"fields": ["joined_by"], "partialFilterExpression": {"active": True}, "name": "joined_and_active"},
            {"fields": ["active", "state", "priority", "turn", "created_at"]},
            {"fields": ["active", "key_prefix", "priority", "-turn"]},
            {"fields": ["active", "moved_up_by", "priority", "-turn"]},
            {"fields": ["key_prefix", "created_at"], "partialFilterExpression": {"clip": True}, "name": "clips_of_key"},
            {"fields": ["announced", "finished_at"], "partialFilterExpression": {"announced": False}},
            {"fields": ["unsent", "updated_at"], "partialFilterExpression": {"unsent": True}},
            {"fields": ["finished_at"], "expireAfterSeconds": 30 * 86400},
        ],
    }

    @property
    def seen_by(self) -> set[str]:
        """The keys that may see it: all that asked for it."""
        return {self.key_prefix or "", *self.joined_by} - {""}

    @property
    def waited_for_by(self) -> set[str]:
        """The keys that still wait for it."""
        return self.seen_by - {*self.left_by, *self.too_large_for}


class WebhookState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class WebhookDelivery(StoredDocument):
    """One key that is to be told that one job ended. ``_id`` is "<job id>:<key prefix>": it is told once."""

    id = StringField(primary_key=True)
    job_id = StringField(required=True)
    key_prefix = StringField(required=True)
    state = StringField(choices=[state.value for state in WebhookState], default=WebhookState.PENDING.value)
    attempts = IntField(default=0)
    next_at = DateTimeField(default=utcnow)
    last_error = StringField(default="")
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "webhook_deliveries",
        "indexes": [
            {"fields": ["state", "next_at"]},
            {"fields": ["state", "key_prefix", "next_at"]},
            {"fields": ["key_prefix", "state", "-created_at", "-_id"]},
            {"fields": ["created_at"], "expireAfterSeconds": 7 * 86400},
        ],
    }


class ProviderSettings(StoredDocument):
    """What an operator decided about one source, over what PROVIDERS says. ``_id`` is its name."""

    name = StringField(primary_key=True)
    enabled = BooleanField(default=True)
    position = IntField()  # lowest first; None: after those that have one, as PROVIDERS says
    updated_at = DateTimeField(default=utcnow)

    meta = {"collection": "provider_settings", "indexes": []}


class IdentityKind(StrEnum):
    COOKIES = "cookies"
    PROXY = "proxy"
    PO_TOKEN = "po_token"  # noqa: S105 - a kind of secret, none itself


class ProxyUse(StrEnum):
    """What a proxy is for: asking YouTube about a video, fetching the media, or both."""

    BOTH = "both"
    EXTRACT = "extract"
    DOWNLOAD = "download"


class Identity(StoredDocument):
    """Cookies, a proxy or PO tokens for yt-dlp. The secret (a cookies.txt, an address, tokens) is encrypted."""

    id = StringField(primary_key=True, default=lambda: secrets.token_hex(6))
    kind = StringField(required=True, choices=[kind.value for kind in IdentityKind])
    name = StringField(required=True, max_length=64)  # the operator's, to tell them apart
    secret_encrypted = EncryptedField(required=True)
    version = IntField(default=1)  # one more when an operator replaces the secret: older write-backs are dropped
    use = StringField(choices=[use.value for use in ProxyUse])  # of proxies
    bound = BooleanField()  # of PO tokens: made for a visitor, so of no use together with cookies
    enabled = BooleanField(default=True)
    strikes = IntField(default=0)  # failures since the last answer: how long it rests after the next one
    resting_until = DateTimeField()
    answers = IntField(default=0)
    failures = IntField(default=0)
    last_error = StringField(default="")  # a reason of services/ways.py
    last_used_at = DateTimeField()
    last_answer_at = DateTimeField()
    last_failure_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "identities",
        "indexes": [
            {"fields": ["kind", "name"], "unique": True},
            {"fields": ["kind", "enabled", "last_used_at"]},
        ],
    }


class JobTurns(StoredDocument):
    """How far the queue of one priority has come: the highest turn that was picked, and how many picks there were."""

    priority = StringField(primary_key=True)
    reached = IntField(default=0)
    picks = IntField(default=0)

    meta = {"collection": "job_turns", "indexes": []}


class VideoInfoRecord(StoredDocument):
    """What is known of a video: the provider's answer, or the content error it gave. Forgotten at ``expires_at``."""

    video_id = StringField(primary_key=True)
    provider = StringField()
    info = DictField()  # apps.downloads.providers.base.VideoInfo as JSON; empty when there is an error
    error_code = StringField()
    error_message = StringField()
    fresh_until = DateTimeField(required=True)
    expires_at = DateTimeField(required=True)
    asked_at = DateTimeField()  # when the sources last gave an answer, or failed to
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "video_info",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class LookupRecord(StoredDocument):
    """An answer from outside that is no media (a page of a list, subtitles, a picture), or the error it was."""

    id = StringField(primary_key=True)
    kind = StringField(required=True)
    answer = DictField()
    error_code = StringField()
    error_message = StringField()
    fresh_until = DateTimeField(required=True)
    expires_at = DateTimeField(required=True)
    created_at = DateTimeField(default=utcnow)
    used_at = DateTimeField()  # when somebody last read it, to within minutes

    meta = {
        "collection": "lookups",
        "indexes": [
            {"fields": ["expires_at"], "expireAfterSeconds": 0},
            {"fields": ["kind", "used_at"]},
        ],
    }


class MediaTicket(StoredDocument):
    """A bot's order for a file. Its id cannot be guessed, and is enough to ask how the file is coming along."""

    id = StringField(primary_key=True, default=new_job_id)
    key_prefix = StringField(required=True)
    query = StringField(required=True)
    kind = StringField(required=True)
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "media_tickets",
        "indexes": [{"fields": ["created_at"], "expireAfterSeconds": 86400}],
    }


class Batch(StoredDocument):
    """Many files that a key asked for at once. Each entry gets its asset and job, or its own error, in its own time."""

    id = StringField(primary_key=True, default=new_job_id)
    key_prefix = StringField(required=True)
    kind = StringField(required=True)
    wish = StringField()
    options = DictField()  # apps.downloads.variants.MediaOptions, what differs from its defaults
    entries = ListField(
        DictField()
    )  # [{url, video_id, asset_id, job_id, error_code, error_message, cancelled, asked_at, tries, not_before}]
    open = BooleanField(default=True)  # some of its entries are not started yet
    truncated = BooleanField(default=False)
    cancelled_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "batches",
        "indexes": [
            {"fields": ["key_prefix", "-created_at"]},
            {"fields": ["open", "key_prefix", "created_at"], "partialFilterExpression": {"open": True}},
            {"fields": ["entries.job_id"]},
            {"fields": ["created_at"], "expireAfterSeconds": 7 * 86400},
        ],
    }
