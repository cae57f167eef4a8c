"""Every index of the database, from the documents' ``meta``. Nothing else makes indexes, or drops them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymongo
from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from mongoengine import Document
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from apps.core.search import SearchedDocument, fill_words
from apps.core.stored import StoredDocument

BUILD_TIMEOUT_S = 4 * 3600.0  # for one collection's new indexes; each takes half a minute and more for 10 million
MANY = 200_000  # documents: people are told that it takes a while
REPLACED = {
    "content_cache": (
        "state_1_verify_tried_at_1",
        "state_1_upload_retry_at_1",
        "state_1_lease_until_1",
        "refetch_reason_1",
        "upload_waits_for_1_state_1_upload_retry_at_1",
    ),
    "api_keys": ("active_1",),
    "audit_log": ("words_1",),
    "webhook_deliveries": ("key_prefix_1_state_1",),
    "warm_up_entries": ("warm_up_id_1_state_1_number_1", "started_at_1"),
    "lookups": ("kind_1_created_at_1",),
    "batches": ("open_1_created_at_1",),
    "usage_stats": ("key_prefix_1_at_-1", "video_id_1_at_-1"),
    "concurrent_users": ("key_prefix_1",),
}
"""Indexes of older versions, by collection, which others do the work of now, or which nothing asks for any more."""


def documents() -> list[type[Document]]:
    """Every document class of the installed apps, by collection name."""
    autodiscover_modules("documents")
    own = tuple(f"{config.name}." for config in apps.get_app_configs())
    classes = {*StoredDocument.__subclasses__(), *SearchedDocument.__subclasses__()} - {SearchedDocument}
    found = [document for document in classes if document.__module__.startswith(own)]
    return sorted(found, key=lambda document: str(document._get_collection_name()))


def ensure_indexes(report: Callable[[str], None] = lambda _line: None) -> dict[str, list[str]]:
    """Make every index that is missing, then drop those that they replace. Idempotent, on many nodes at once too.
    Returns the index names by collection.

    Waits for MongoDB up to BUILD_TIMEOUT_S, not only as long as for an answer: then, or when it goes away, raises what
    PyMongo raises. Serving processes go on meanwhile. ``report`` gets a line before what takes long.
    """
    made: dict[str, list[str]] = {}
    for document in documents():
        collection: Collection[Any] = document._get_collection()
        missing = document.compare_indexes()["missing"]
        if missing and (count := collection.estimated_document_count()) >= MANY:
            indexes = "a new index" if len(missing) == 1 else f"{len(missing)} new indexes"
            report(f"Making {indexes} of {collection.name}, over {count:,} documents: this can take minutes ...")
        with pymongo.timeout(BUILD_TIMEOUT_S):
            document.ensure_indexes()
        made[collection.name] = sorted(_without_replaced(collection))
    return made


def _without_replaced(collection: Collection[Any]) -> set[str]:
    """Drop the collection's replaced indexes; the names of those that are left."""
    names = set(collection.index_information())
    for name in names.intersection(REPLACED.get(collection.name, ())):
        with suppress(OperationFailure):  # another node was faster
            collection.drop_index(name)
        names.remove(name)
    return names


def fill_search_words() -> int:
    """Make what an older version wrote findable by words; return how many documents. Idempotent."""
    return sum(fill_words(document) for document in documents() if issubclass(document, SearchedDocument))
