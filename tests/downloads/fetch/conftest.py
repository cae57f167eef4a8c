"""Fixtures of downloads: an origin that serves media, and a way to fetch from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from apps.downloads.documents import MediaJob
from apps.downloads.fetch import engine
from apps.downloads.fetch.outcomes import Limits
from apps.downloads.providers.chain import ProviderChain
from apps.downloads.selectors import find_job
from apps.downloads.services.jobs import ensure_job
from apps.streaming.hotstore import HotStore
from apps.streaming.hotstore.layout import HotPath
from apps.telegram_cache.documents import Asset, AssetKey
from apps.telegram_cache.services import eviction
from tests.downloads.fetch.origin import Origin, SampleProvider
from tests.downloads.samples import known_key, video_info
from tests.standins.media import Media, make_media

FAST = Limits(stall_s=4, backoff_s=0.01, backoff_max_s=0.05, retry_delays_s=(), room_delays_s=())


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="session")
def media() -> Media:
    return make_media("small")


@pytest.fixture(scope="session")
def long_audio() -> bytes:
    """Several MiB of M4A."""
    return make_media("large").read("audio.m4a")


class Fetcher:
    """Makes a job for a key and runs it here, against the providers it was given."""

    def __init__(self) -> None:
        self.providers: list[SampleProvider] = []
        self.limits = FAST
        self.store = HotStore(settings.ENV.hot_root)
        self._begun: list[threading.Thread] = []

    def job(self, key: AssetKey) -> MediaJob:
        return ensure_job(key=key, info=video_info(key.video_id), key_prefix=known_key("testkey1"))

    def run(self, job: MediaJob) -> MediaJob:
        engine.fetch_asset(job.id, chain=ProviderChain(self.providers), limits=self.limits)
        return find_job(job.id)

    def fetch(self, key: AssetKey) -> MediaJob:
        return self.run(self.job(key))

    def begin(self, job: MediaJob) -> threading.Thread:
        thread = threading.Thread(target=self.run, args=(job,))
        thread.start()
        self._begun.append(thread)
        return thread

    def wait_for_all(self) -> None:
        """Until nothing begun here runs on: it would take part in the next test."""
        for thread in self._begun:
            thread.join(60)
            assert not thread.is_alive(), "a fetch did not end within 60 s"

    def read(self, asset: Asset) -> bytes:
        """The bytes of a finished asset."""
        assert self.store.is_complete(asset.id, asset.generation)
        return self.path(asset).read_bytes()

    def path(self, asset: Asset) -> Path:
        return HotPath.of(self.store.root, asset.id, asset.generation).data


@pytest.fixture
def fetcher(mongo: None, redis_server: None, hot_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
    monkeypatch.setattr(eviction, "_in_vain_until", float("-inf"))
    fetcher = Fetcher()
    yield fetcher
    fetcher.wait_for_all()
