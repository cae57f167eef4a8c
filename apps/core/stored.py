"""The base of every document: only ``ensure_indexes`` makes indexes, and fields of a newer version are let be."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from mongoengine import Document, EmbeddedDocument


class StoredDocument(Document):
    """A document with a collection of its own.

    Not strict: while a new version is rolled out (or rolled back), processes of the old one read what it has written.
    """

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False, "strict": False}

    @classmethod
    def by_id(cls, document_id: Any) -> Self | None:
        """The document with this id, or None. A query set would cost as much again as MongoDB does."""
        stored = cls._get_collection().find_one({"_id": document_id})
        found: Self | None = None if stored is None else cls._from_son(stored)
        return found

    @classmethod
    def as_restored(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """What of a backup is put back; ``stored`` is as MongoDB had it. For what must not come back to life."""
        return stored


class StoredPart(EmbeddedDocument):
    """A document inside another one."""

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "strict": False}
