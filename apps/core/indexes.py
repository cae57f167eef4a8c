"""Every index of the database, from the documents' ``meta``. Nothing else makes indexes."""

from __future__ import annotations

from typing import Any

from mongoengine import Document
from mongoengine.base import get_document

DOCUMENT_NAMES = (
    "User", "ApiKey", "Asset", "TelegramBot", "TelegramChannel", "MediaJob", "VideoInfoRecord",
)  # fmt: skip


def documents() -> list[type[Document]]:
    """Every document class that has a collection of its own."""
    return [get_document(name) for name in DOCUMENT_NAMES]


def ensure_indexes() -> dict[str, Any]:
    """Make every index that is missing. Idempotent. Returns the index names by collection."""
    made = {}
    for document in documents():
        document.ensure_indexes()
        made[document._get_collection_name()] = sorted(document._get_collection().index_information())
    return made
