"""The audit log: who changed what in the admin; and the settings that they changed."""

from __future__ import annotations

from mongoengine.fields import DateTimeField, DictField, IntField, StringField

from apps.core.clock import utcnow
from apps.core.search import SearchedDocument
from apps.core.stored import StoredDocument


class AuditEntry(SearchedDocument):
    """One change, or one attempt to enter. Written once, never changed."""

    at = DateTimeField(required=True, default=utcnow)
    actor = StringField(required=True)  # a username
    action = StringField(required=True)  # "key.create": what kind of thing, and what was done to it
    target_kind = StringField(required=True)
    target_id = StringField(required=True)
    before = DictField()  # only the fields that the change touched, without secrets
    after = DictField()
    address = StringField(default="")
    request_id = StringField(default="")
    searched_fields = ("actor", "action", "target_id")

    meta = {
        "collection": "audit_log",
        "indexes": [
            {"fields": ["-at", "-_id"]},
            {"fields": ["words", "-at", "-_id"]},
            {"fields": ["target_kind", "-at", "-_id"]},
            {"fields": ["target_kind", "words", "-at", "-_id"]},
            {"fields": ["target_kind", "target_id", "-at"]},
            {"fields": ["action", "-at", "-_id"]},
            {"fields": ["target_kind", "action", "-at", "-_id"]},
            {"fields": ["actor", "-at"]},
            {"fields": ["address", "-at"]},
            {"fields": ["request_id"]},
        ],
    }


class StoredTunable(StoredDocument):
    """A setting that somebody changed while the server runs (core/tunables.py). ``value`` None: the default holds."""

    name = StringField(primary_key=True)
    value = IntField()
    changed_at = DateTimeField(default=utcnow)

    meta = {"collection": "tunables", "indexes": []}
