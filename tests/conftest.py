"""Fixtures that every app's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from apps.core.indexes import ensure_indexes
from apps.core.redis import redis_client
from apps.core.tunables import dialects
from tests.emptying import empty_hot_store, empty_mongo
from tests.scans import scans

# Timings never decide a test: neither hypothesis's limit for one example nor its complaint about slow data.
hypothesis_settings.register_profile("ytserver", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("ytserver")


@pytest.fixture(scope="module", autouse=True)
def _no_collection_scans() -> Iterator[None]:
    """Whatever the program asks MongoDB for in this module's tests, an index serves it."""
    yield
    found = scans.found()
    assert not found, "no index serves these queries:\n" + "\n".join(found)


@pytest.fixture(scope="session")
def _indexes() -> None:
    ensure_indexes()


@pytest.fixture
def mongo(_indexes: None) -> None:
    """The real MongoDB, with every index and no documents."""
    empty_mongo()


@pytest.fixture
def redis_server() -> None:
    """The real Redis, empty."""
    redis_client().flushdb()


@pytest.fixture
def hot_root() -> Path:
    """The folder of the hot store, empty."""
    empty_hot_store()
    settings.ENV.hot_root.mkdir(parents=True)
    return settings.ENV.hot_root


@pytest.fixture
def channels_away(settings: Any) -> None:
    """The Redis of the websockets' channels does not answer."""
    layer = {**settings.CHANNEL_LAYERS["default"], "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]}}
    settings.CHANNEL_LAYERS = {"default": layer}


@pytest.fixture
def dialects_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every music-bot dialect is answered."""
    everything = settings.ENV.model_copy(update={"dialects": tuple(dialects)})
    monkeypatch.setattr(settings, "ENV", everything)
