"""Fixtures that every app's tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import mongoengine
import pytest
from django.conf import settings

from apps.core.indexes import ensure_indexes
from apps.core.redis import redis_client


@pytest.fixture(scope="session")
def _indexes() -> None:
    ensure_indexes()


@pytest.fixture
def mongo(_indexes: None) -> None:
    """The real MongoDB, with every index and no documents."""
    database = mongoengine.get_db()
    for name in database.list_collection_names():
        database[name].delete_many({})


@pytest.fixture
def redis_server() -> None:
    """The real Redis, empty."""
    redis_client().flushdb()


@pytest.fixture
def hot_root() -> Path:
    """The folder of the hot store, empty."""
    shutil.rmtree(settings.ENV.hot_root, ignore_errors=True)
    settings.ENV.hot_root.mkdir(parents=True)
    return settings.ENV.hot_root
