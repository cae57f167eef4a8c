"""MongoDB, Redis and the hot store, emptied: for the fixtures of one test, and for instances that many tests share."""

from __future__ import annotations

import shutil

import mongoengine
from django.conf import settings

from apps.core.indexes import ensure_indexes
from apps.core.redis import redis_client


def empty_mongo() -> None:
    """No documents in any collection; the indexes stay."""
    database = mongoengine.get_db()
    for name in database.list_collection_names():
        database[name].delete_many({})


def empty_hot_store() -> None:
    shutil.rmtree(settings.ENV.hot_root, ignore_errors=True)


def empty_everything() -> None:
    """What an instance begins with that lives across tests: nothing but the indexes."""
    empty_mongo()
    redis_client().flushdb()
    empty_hot_store()
    ensure_indexes()
