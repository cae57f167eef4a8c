"""People and their API keys."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

from mongoengine.fields import BooleanField, DateTimeField, IntField, ListField, StringField

from apps.core.clock import utcnow
from apps.core.encrypted import EncryptedField
from apps.core.search import SearchedDocument

DEFAULT_LIMIT_PER_HOUR = 1000
MAX_LIMIT = 1_000_000_000
MAX_BYTES = 10**15
MAX_CONCURRENT = 100_000
MAX_NOTES = 4000
LIMIT_NAMES = (
    "limit_per_hour",
    "limit_per_day",
    "bytes_per_day",
    "concurrent_streams",
    "concurrent_jobs",
    "longest_video_s",
    "largest_file_bytes",
)


class Role(StrEnum):
    OWNER = "owner"
    OPERATOR = "operator"
    VIEWER = "viewer"
    NONE = "none"  # has keys, may not enter the admin


class Scope(StrEnum):
    INFO = "info"
    MEDIA = "media"
    SEARCH = "search"
    ADMIN = "admin"


class WithLimits:
    """Limits of a key; of a user, they are what the keys of theirs start from. None: as the user has it, else the
    default (1000 requests an hour, nothing else limited). 0: no such limit."""

    limit_per_hour = IntField(min_value=1, max_value=MAX_LIMIT)
    limit_per_day = IntField(min_value=0, max_value=MAX_LIMIT)
    bytes_per_day = IntField(min_value=0, max_value=MAX_BYTES)
    concurrent_streams = IntField(min_value=0, max_value=MAX_CONCURRENT)
    concurrent_jobs = IntField(min_value=0, max_value=MAX_CONCURRENT)
    longest_video_s = IntField(min_value=0, max_value=MAX_LIMIT)
    largest_file_bytes = IntField(min_value=0, max_value=MAX_BYTES)

    @property
    def own_limits(self) -> dict[str, int | None]:
        """By name, as they are set here."""
        return {name: getattr(self, name) for name in LIMIT_NAMES}


class User(WithLimits, SearchedDocument):
    """Somebody who owns keys, and, with a role, may enter the admin. The password is stored as an Argon2 hash.

    Switched off, the user can't log in and none of their keys works.
    """

    username = StringField(required=True, min_length=1, max_length=64)
    name = StringField(default="", max_length=100)
    contact = StringField(default="", max_length=254)
    password_hash = StringField(default="")
    role = StringField(required=True, choices=[role.value for role in Role], default=Role.NONE.value)
    active = BooleanField(default=True)
    session_version = IntField(default=1)  # raised to end every session of this user
    totp_encrypted = EncryptedField(default="")  # the second factor; empty: none
    totp_last_step = IntField(default=0)  # of the newest code used: neither it nor an older one works again
    recovery_hashes = ListField(StringField())  # SHA-256 of the recovery codes that are left
    notes = StringField(default="", max_length=MAX_NOTES)
    last_login_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)

    searched_fields = ("username", "name", "contact")

    meta = {
        "collection": "users",
        "indexes": [
            {"fields": ["username"], "unique": True},
            {"fields": ["username", "_id"]},
            {"fields": ["-created_at", "-_id"]},
            {"fields": ["role", "active"]},
            {"fields": ["active", "username", "_id"]},
            {"fields": ["words"]},
            {"fields": ["-last_login_at", "-_id"]},
        ],
    }

    @classmethod
    def as_restored(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """No session of before works after a restore: with the backup's number, ended ones would come back.

        The seconds since 1970 are more than any number that was counted up, or that an earlier restore gave.
        """
        return {**stored, "session_version": max(int(stored.get("session_version") or 0) + 1, int(time.time()))}


class ApiKey(WithLimits, SearchedDocument):
    """A caller's key, ``yt_<prefix>_<secret>``. Only the SHA-256 of the secret is stored."""

    prefix = StringField(required=True, min_length=8, max_length=8)
    secret_sha256 = StringField(required=True, min_length=64, max_length=64)
    old_secret_sha256 = StringField(default="", max_length=64)  # after a rotation, good until old_secret_until
    old_secret_until = DateTimeField()
    rotated_at = DateTimeField()
    name = StringField(required=True, min_length=1, max_length=100)
    owner = StringField(default="")  # a username
    labels = ListField(StringField(max_length=50))
    scopes = ListField(StringField(choices=[scope.value for scope in Scope]))
    active = BooleanField(default=True)
    expires_at = DateTimeField()
    allowed_cidrs = ListField(StringField(max_length=50))  # empty: from everywhere
    allowed_origins = ListField(StringField(max_length=200))  # of pages that may read answers (CORS); "*": all
    bind_links = BooleanField(default=False)  # links work only from the address that asked for them
    webhook_url = StringField(default="", max_length=2000)  # told when this key's jobs end; only the operator sets it
    webhook_secret_encrypted = EncryptedField(default="")
    last_used_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)
    revoked_at = DateTimeField()
    searched_fields = ("name", "owner", "prefix", "labels")

    meta = {
        "collection": "api_keys",
        "indexes": [
            {"fields": ["prefix"], "unique": True},
            {"fields": ["owner"]},
            {"fields": ["allowed_origins"]},
            {"fields": ["active", "expires_at", "revoked_at"]},
            {"fields": ["name", "_id"]},
            {"fields": ["words"]},
            {"fields": ["-created_at", "-_id"]},
            {"fields": ["-created_at", "prefix"]},
            {"fields": ["-last_used_at", "-_id"]},
            {"fields": ["-limit_per_hour", "-_id"]},
        ],
    }
