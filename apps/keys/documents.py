"""People and their API keys."""

from __future__ import annotations

from enum import StrEnum

from mongoengine.fields import BooleanField, DateTimeField, IntField, ListField, StringField

from apps.core.clock import utcnow
from apps.core.search import SearchedDocument

DEFAULT_LIMIT_PER_HOUR = 1000


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


class User(SearchedDocument):
    """Somebody who owns keys, and, with a role, may enter the admin. The password is stored as an Argon2 hash."""

    username = StringField(required=True, min_length=1, max_length=64)
    contact = StringField(default="", max_length=254)
    password_hash = StringField(default="")
    role = StringField(required=True, choices=[role.value for role in Role], default=Role.NONE.value)
    active = BooleanField(default=True)
    session_version = IntField(default=1)  # raised to end every session of this user
    notes = StringField(default="")
    last_login_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)

    searched_fields = ("username", "contact")

    meta = {
        "collection": "users",
        "indexes": [{"fields": ["username"], "unique": True}],
    }


class ApiKey(SearchedDocument):
    """A caller's key, ``yt_<prefix>_<secret>``. Only the SHA-256 of the secret is stored."""

    prefix = StringField(required=True, min_length=8, max_length=8)
    secret_sha256 = StringField(required=True, min_length=64, max_length=64)
    name = StringField(required=True, min_length=1, max_length=100)
    owner = StringField(default="")  # a username
    scopes = ListField(StringField(choices=[scope.value for scope in Scope]))
    active = BooleanField(default=True)
    expires_at = DateTimeField()
    limit_per_hour = IntField(required=True, min_value=1, max_value=1_000_000_000, default=DEFAULT_LIMIT_PER_HOUR)
    limit_per_day = IntField(min_value=1)  # None, here and below: no such limit
    bytes_per_day = IntField(min_value=1)
    webhook_url = StringField(default="", max_length=2000)  # told when this key's jobs end; only the operator sets it
    webhook_secret_encrypted = StringField(default="")
    last_used_at = DateTimeField()
    created_at = DateTimeField(default=utcnow)
    revoked_at = DateTimeField()
    searched_fields = ("name", "owner", "prefix")

    meta = {
        "collection": "api_keys",
        "indexes": [{"fields": ["prefix"], "unique": True}, {"fields": ["owner"]}, {"fields": ["-created_at"]}],
    }
