"""The durable record of media: assets, their parts in Telegram, and the bots and channels that hold them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from mongoengine.fields import (
    BinaryField,
    BooleanField,
    DateTimeField,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    FloatField,
    IntField,
    MapField,
    StringField,
)

from apps.core.clock import utcnow
from apps.core.encrypted import EncryptedField
from apps.core.search import SearchedDocument
from apps.core.stored import StoredDocument, StoredPart

BLOCK_BYTES = 1024 * 1024
SHA256_BYTES = 32


class MediaKind(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"


class AssetState(StrEnum):
    """``absent -> queued -> fetching -> ready -> uploading -> cached``, or ``failed``."""

    ABSENT = "absent"
    QUEUED = "queued"
    FETCHING = "fetching"
    READY = "ready"  # the whole file is in the hot store
    UPLOADING = "uploading"
    CACHED = "cached"  # every part is in Telegram
    FAILED = "failed"


FINISHED_STATES = (AssetState.READY, AssetState.UPLOADING, AssetState.CACHED)
"""States in which the bytes exist in full: in the hot store, in Telegram, or both."""


class PartState(StrEnum):
    PLANNED = "planned"  # never sent yet
    SENDING = "sending"
    STORED = "stored"
    UNKNOWN = "unknown"  # sent, but no answer: resolved before anything is sent again
    BAD = "bad"


class AssetKey(NamedTuple):
    """What an asset is. ``variant`` is resolved ("1080p", "m4a"), never "best"."""

    video_id: str
    kind: MediaKind
    variant: str

    @property
    def asset_id(self) -> str:
        """24 hex digits, the same on every installation: links and imported caches agree without a lookup."""
        return hashlib.sha256(f"{self.video_id}|{self.kind}|{self.variant}".encode()).hexdigest()[:24]


class Part(StoredPart):
    """A stretch of an asset that is one Telegram message. Offsets are multiples of BLOCK_BYTES."""

    index = IntField(required=True, min_value=0)
    offset = IntField(required=True, min_value=0)
    size = IntField(required=True, min_value=1)
    sha256 = StringField(max_length=64)
    channel_id = StringField()
    message_id = IntField()
    file_unique_id = StringField()
    file_ids = MapField(StringField())  # {numeric bot id: file_id}
    state = StringField(required=True, choices=[state.value for state in PartState])
    attempt_id = StringField()  # written before sending; also in the caption
    bot_id = StringField()  # who sends, while the state is sending or unknown
    after_message_id = IntField(default=0)  # newest message known in the channel before this attempt was sent
    bad_reason = StringField()


class Generation(StoredPart):
    """What an asset was before it was fetched anew. Kept until what was fetched is in Telegram; when the fetch fails,
    the asset is this again.
    """

    generation = IntField(required=True)
    state = StringField(required=True, choices=[state.value for state in FINISHED_STATES])
    parts = EmbeddedDocumentListField(Part)
    parts_generation = IntField()
    size_bytes = IntField()
    sha256 = StringField()
    block_sha256 = BinaryField()
    container = StringField()
    mime = StringField()
    provider = StringField()
    duration_s = FloatField()
    video_codec = StringField()
    audio_codec = StringField()
    width = IntField()
    height = IntField()
    fps = FloatField()
    dynamic_range = StringField()
    bitrate_kbps = FloatField()
    message_link = StringField()
    playable = EmbeddedDocumentField(Part)
    verified_at = DateTimeField()
    upload_attempts = IntField()
    upload_failing_since = DateTimeField()


class Orphan(StoredPart):
    """A message in a channel that no part needs (``message_id`` None: it may exist). Removed where the API allows."""

    index = IntField(required=True)
    attempt_id = StringField(default="")
    channel_id = StringField(default="")
    message_id = IntField()
    after_message_id = IntField(default=0)  # this and the next two: to look for a message whose id nobody knows
    sha256 = StringField()
    size = IntField()
    reason = StringField(default="")
    noted_at = DateTimeField()
    tried_at = DateTimeField()  # the last try to remove it, or to find it
    tries = IntField(default=0)  # in vain; each makes the next one wait twice as long
    next_try_at = DateTimeField()
    gave_up_at = DateTimeField()  # nobody tries any more: no bot can look where it may be, or it was tried for a month


class Asset(SearchedDocument):
    """One video or audio file, wherever its bytes are. ``_id`` is ``AssetKey.asset_id``.

    ``generation`` counts encodings: bytes of one generation never change. ``attempt`` fences claims: only the owner
    of the newest attempt may commit. ``block_sha256`` holds the 32-byte hashes of the 1 MiB blocks, one after another.
    """

    id = StringField(primary_key=True, min_length=24, max_length=24)
    video_id = StringField(required=True, min_length=11, max_length=11)
    kind = StringField(required=True, choices=[kind.value for kind in MediaKind])
    variant = StringField(required=True, max_length=64)
    is_best = BooleanField()  # the best that its source had when the fetch was asked for
    title = StringField(default="")
    uploader = StringField(default="")
    duration_s = FloatField()
    thumbnail = StringField(default="")
    container = StringField(default="")
    mime = StringField(default="application/octet-stream")
    size_bytes = IntField(min_value=0)
    video_codec = StringField()  # this and the next five are measured from the finished file
    audio_codec = StringField()
    width = IntField()
    height = IntField()
    fps = FloatField()
    dynamic_range = StringField()
    bitrate_kbps = FloatField()
    sha256 = StringField(max_length=64)
    block_sha256 = BinaryField()
    generation = IntField(required=True, default=1, min_value=1)
    provider = StringField()
    state = StringField(required=True, choices=[state.value for state in AssetState], default=AssetState.ABSENT.value)
    attempt = IntField(required=True, default=0, min_value=0)
    lease_owner = StringField()
    lease_until = DateTimeField()
    error_code = StringField()
    error_message = StringField()
    retry_at = DateTimeField()
    fetch_failures = IntField(default=0)  # in a row; each makes the next try wait longer
    parts = EmbeddedDocumentListField(Part)
    upload_owner = StringField()
    upload_lease_until = DateTimeField()
    upload_error = StringField()
    upload_waits_for = StringField()  # not a failure: why it is not its turn until ``upload_retry_at``
    upload_attempts = IntField(default=0)
    upload_deaths = IntField()  # runs in a row whose process ended without a word
    upload_retry_at = DateTimeField()
    upload_failing_since = DateTimeField()  # no part has been stored since then, and there were failures
    upload_gave_up_at = DateTimeField()  # nobody tries any more until `cache repair`
    alert = StringField()  # what an operator has to know, in plain words
    out_of_reach_since = DateTimeField()  # asked for since then, and this Bot API server does not give the parts
    refetch_reason = StringField()  # bytes that nobody has any more: to be fetched anew
    verified_at = DateTimeField()  # every part was read back and found right
    verify_tried_at = DateTimeField()  # somebody began to read it back, whatever came of it
    upload_queued_at = DateTimeField()  # a task for it was sent then, so that the sweep does not send it again
    parts_generation = IntField(default=1)  # the generation that ``parts`` belong to
    previous = EmbeddedDocumentField(Generation)  # while a new generation is fetched and stored
    tried_generation = IntField()  # the newest one that was begun and given up: its number is not used again
    orphans = EmbeddedDocumentListField(Orphan)
    playable = EmbeddedDocumentField(Part)  # the whole file once more, as a message that people can play
    playable_tries = IntField(default=0)
    playable_until = DateTimeField()  # whoever posts it has the right to until then
    message_link = StringField()
    access_count = IntField(default=0)
    last_accessed_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)
    updated_at = DateTimeField(default=utcnow)
    searched_fields = ("title", "uploader", "video_id")

    meta = {
        "collection": "content_cache",
        "indexes": [
            {"fields": ["video_id", "kind", "variant"], "unique": True},
            {"fields": ["state", "upload_gave_up_at", "upload_retry_at"]},
            {"fields": ["state", "kind", "-last_accessed_at", "-_id"]},
            {"fields": ["state", "_id"]},
            {"fields": ["state", "kind", "size_bytes"]},
            {"fields": ["-last_accessed_at", "-_id"]},
            {"fields": ["-access_count", "-_id"]},
            {"fields": ["-size_bytes", "-_id"]},
            {"fields": ["title", "_id"]},
            {"fields": ["words"]},
            {"fields": ["state", "verify_tried_at", "_id"]},
            {
                "fields": ["retry_at"],
                "partialFilterExpression": {"refetch_reason": {"$gt": ""}},
                "name": "to_refetch",
            },
            {"fields": ["upload_gave_up_at"], "sparse": True},
            {
                "fields": ["state", "upload_retry_at", "upload_waits_for"],
                "partialFilterExpression": {"upload_waits_for": {"$gt": ""}},
            },
            {"fields": ["upload_owner"], "sparse": True},
            {"fields": ["playable_until"], "sparse": True},
            {"fields": ["out_of_reach_since"], "sparse": True},
            {"fields": ["orphans.message_id"], "sparse": True},
            {"fields": ["orphans.size"], "sparse": True},
            {"fields": ["orphans.noted_at"], "sparse": True},
            {"fields": ["parts.message_id"]},
            {"fields": ["playable.message_id"], "sparse": True},
        ],
    }

    @property
    def key(self) -> AssetKey:
        return AssetKey(self.video_id, MediaKind(self.kind), self.variant)

    @property
    def block_hashes(self) -> list[bytes]:
        """SHA-256 of each 1 MiB block (the last may be shorter); empty while the asset is being fetched."""
        packed = bytes(self.block_sha256 or b"")
        return [packed[at : at + SHA256_BYTES] for at in range(0, len(packed), SHA256_BYTES)]

    def parts_of(self, generation: int) -> list[Part] | None:
        """The parts of that generation, if it is the asset's or the one before it. None: nobody has them any more."""
        if generation == self.generation == self.parts_generation:
            return list(self.parts)
        if self.previous is not None and generation == self.previous.generation == self.previous.parts_generation:
            return list(self.previous.parts)
        return None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED_STATES

    @property
    def is_in_telegram(self) -> bool:
        """Whether every byte has a stored part."""
        stored = sum(part.size for part in self.parts if part.state == PartState.STORED)
        return bool(self.size_bytes) and stored == self.size_bytes and self.parts_generation == self.generation


class BotState(StrEnum):
    ACTIVE = "active"
    COOLING = "cooling"
    DISABLED = "disabled"


DISABLED_BY_OPERATOR = "disabled by the operator"
"""The reason that no check overrules; any other reason is Telegram's, and may pass."""


class TelegramBot(StoredDocument):
    """A bot that stores and reads parts. The token is encrypted; the numeric id names the bot for good."""

    bot_id = StringField(primary_key=True)
    username = StringField(default="")
    token_encrypted = EncryptedField(required=True)
    state = StringField(required=True, choices=[state.value for state in BotState], default=BotState.ACTIVE.value)
    reason = StringField(default="")
    until = DateTimeField()
    barred = MapField(StringField())  # {channel id: why this bot cannot post there}
    checked_at = DateTimeField()  # the last getMe that went well
    created_at = DateTimeField(default=utcnow)
    updated_at = DateTimeField(default=utcnow)

    meta = {"collection": "telegram_bots", "indexes": []}

    @property
    def is_resting(self) -> bool:
        """Whether Telegram lets it wait right now; the record keeps a rest that is over until somebody changes it."""
        return self.state == BotState.COOLING and self.until is not None and self.until > datetime.now(UTC)

    @property
    def state_now(self) -> BotState:
        """For people: a bot whose rest is over is active."""
        state = BotState(self.state)
        return BotState.ACTIVE if state is BotState.COOLING and not self.is_resting else state

    @property
    def reason_now(self) -> str:
        return str(self.reason) if self.state_now == self.state else ""

    @property
    def until_now(self) -> datetime | None:
        return self.until if self.is_resting else None


class TelegramChannel(StoredDocument):
    """A channel that holds parts. New parts go to the one that is ``is_default``; the others stay readable."""

    channel_id = StringField(primary_key=True)
    title = StringField(default="")
    username = StringField(default="")
    state = StringField(required=True, choices=[state.value for state in BotState], default=BotState.ACTIVE.value)
    reason = StringField(default="")
    is_default = BooleanField(default=False)
    last_message_id = IntField(default=0)  # the newest message id seen there
    messages_per_min = IntField(default=60, min_value=1)  # Telegram publishes no exact limit; about 1/s per chat
    playable = BooleanField(default=False)  # media up to 50 MB is also posted as a song or a video that people can play
    alert = StringField(default="")  # why no bot can post there, while that is so
    scratch_chat_id = StringField(default="")  # where copies for re-keying go; empty: the channel itself
    checked_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)
    updated_at = DateTimeField(default=utcnow)

    meta = {
        "collection": "telegram_channels",
        "indexes": [
            {"fields": ["is_default"], "unique": True, "partialFilterExpression": {"is_default": True}},
        ],
    }


AUDITED = ("title", "state", "is_default", "playable", "scratch_chat_id", "messages_per_min")
"""What the audit log keeps of a channel that somebody changed."""
