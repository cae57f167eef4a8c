"""Every index of the database, from the documents' ``meta``. Nothing else makes indexes."""

from __future__ import annotations

from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from mongoengine import Document

from apps.core.search import SearchedDocument, fill_words
from apps.core.stored import StoredDocument


def documents() -> list[type[Document]]:
    """Every document class of the installed apps, by collection name."""
    autodiscover_modules("documents")
    own = tuple(f"{config.name}." for config in apps.get_app_configs())
    classes = {*StoredDocument.__subclasses__(), *SearchedDocument.__subclasses__()} - {SearchedDocument}
    found = [document for document in classes if document.__module__.startswith(own)]
    return sorted(found, key=lambda document: str(document._get_collection_name()))


def ensure_indexes() -> dict[str, list[str]]:
    """Make every index that is missing. Idempotent. Returns the index names by collection."""
    made: dict[str, list[str]] = {}
    for document in documents():
        document.ensure_indexes()
        made[document._get_collection_name()] = sorted(document._get_collection().index_information())
    return made


def fill_search_words() -> int:
    """Make what an older version wrote findable by words; return how many documents. Idempotent."""
    return sum(fill_words(document) for document in documents() if issubclass(document, SearchedDocument))
