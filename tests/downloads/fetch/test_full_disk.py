"""Fetches onto a disk that is really full."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from apps.core.room import room_of
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.fetch import engine, finish
from apps.downloads.services.answers import job_answer
from apps.downloads.services.media import hot_store
from apps.streaming.hotstore import FileState, HotStore
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind, Part, PartState
from tests.downloads.fetch.conftest import FAST
from tests.downloads.fetch.test_engine import asset, serve
from tests.downloads.library import CONTENT, put_hot
from tests.downloads.samples import VIDEO_ID, audio_key
from tests.small_disk import MIB, SIZE_BYTES, filled, free_bytes, small_disk
from tests.waiting import wait_until


@pytest.fixture
def hot_root(settings, tmp_path: Path) -> Iterator[Path]:
    """The folder of the hot store, empty, on a disk of its own."""
    with small_disk(tmp_path / "disk") as disk:
        settings.ENV = settings.ENV.model_copy(update={"hot_dir": disk / "hot"})
        settings.ENV.hot_root.mkdir()
        hot_store.cache_clear()
        yield settings.ENV.hot_root
        hot_store.cache_clear()


@pytest.fixture
def fetcher(fetcher):
    fetcher.limits = replace(FAST, room_delays_s=(5.0,) * 8)
    return fetcher


def its_time_has_come() -> None:
    MediaJob.objects.update(unset__not_before=1)


def again(fetcher, job: MediaJob) -> MediaJob:
    its_time_has_come()
    return fetcher.run(job)


def put_in_telegram() -> AssetKey:
    """A file that may leave the disk."""
    stored = AssetKey("otherotherx", MediaKind.AUDIO, "m4a")
    put_hot(stored)
    part = Part(index=0, offset=0, size=len(CONTENT), state=PartState.STORED.value)
    Asset.objects(id=stored.asset_id).update_one(set__state=AssetState.CACHED.value, set__parts=[part])
    return stored


def test_a_file_larger_than_the_disk_fails_at_once_and_has_nobody_leave(fetcher, origin, long_audio):
    stored = put_in_telegram()
    serve(fetcher, origin.put("a", long_audio + bytes(SIZE_BYTES)), duration_s=100)
    job = fetcher.fetch(audio_key())
    assert (job.state, job.error_code) == (JobState.FAILED, "too_large")
    assert "disk is too small" in job.error_message
    assert fetcher.store.is_complete(stored.asset_id, 1)


def test_while_a_job_waits_for_room_no_source_is_asked(fetcher, origin, long_audio, hot_root):
    provider = serve(fetcher, origin.put("a", long_audio), duration_s=100)
    with filled(hot_root, leaving=3 * MIB):
        job = fetcher.fetch(audio_key())
        for waits in (2, 3):
            job = again(fetcher, job)
            assert (job.state, job.room_waits, job.error_code) == (JobState.QUEUED, waits, "overloaded")
    assert (provider.plans, origin.counts["a"]) == (1, 1)
    assert again(fetcher, job).state == JobState.DONE
    assert fetcher.read(asset()) == long_audio


class TestBytesThatAreThere:
    """Of a source that does not say how much comes: the disk is full in the middle."""

    @pytest.fixture
    def begun(self, fetcher, origin, long_audio, hot_root):
        def begin(finish: str = "direct", **fields: object) -> MediaJob:
            serve(fetcher, origin.put("a", long_audio, send_length=False), finish=finish, duration_s=100, **fields)
            return fetcher.fetch(audio_key() if finish == "direct" else AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3"))

        return begin

    def test_are_gone_on_from(self, fetcher, origin, begun, long_audio, hot_root):
        with filled(hot_root, leaving=3 * MIB):
            job = begun()
            assert (job.state, job.error_code) == (JobState.QUEUED, "overloaded")
            assert free_bytes(hot_root) >= room_of(hot_root).left_bytes
            half = fetcher.store.open(job.asset_id, 1)
            assert (half.state, half.available_from(0) >= MIB) == (FileState.FAILED, True)
            half.close()
            assert not fetcher.store.is_complete(job.asset_id, 1)
            job = again(fetcher, job)
        sent = origin.sent
        assert again(fetcher, job).state == JobState.DONE
        assert origin.sent - sent < len(long_audio) - MIB
        assert (asset().generation, fetcher.read(asset())) == (1, long_audio)

    @pytest.mark.parametrize("finish", ["direct", "mp3"])
    def test_are_given_up_after_a_while_for_others_to_have_the_room(self, fetcher, begun, long_audio, hot_root, finish):
        fields = {"container": "mp3", "mime": "audio/mpeg"} if finish == "mp3" else {}
        with filled(hot_root, leaving=3 * MIB):
            job = begun(finish, **fields)
            assert free_bytes(hot_root) < 2 * MIB
            job = again(fetcher, job)
            assert free_bytes(hot_root) < 2 * MIB
            MediaJob.objects.update(full_in_a_row=engine.WAITS_WITH_BYTES)
            job = again(fetcher, job)
            assert (job.state, job.error_code) == (JobState.QUEUED, "overloaded")
            assert free_bytes(hot_root) > 3 * MIB - 100_000
        assert again(fetcher, job).state == JobState.DONE
        if finish == "direct":
            assert fetcher.read(asset()) == long_audio


def test_a_begun_file_whose_rest_does_not_fit_is_not_asked_for(fetcher, origin, long_audio, hot_root):
    provider = serve(fetcher, origin.put("a", long_audio), duration_s=100)
    is_full = threading.Event()
    origin.faults.add("a", cut_after_bytes=2 * MIB)
    origin.faults.add("a", until=is_full)
    job = fetcher.job(audio_key())
    running = fetcher.begin(job)
    wait_until(lambda: origin.counts["a"] == 2)
    with filled(hot_root, leaving=MIB):
        is_full.set()
        running.join(60)
        for _ in range(2):
            job = again(fetcher, job)
            assert (job.state, job.error_code) == (JobState.QUEUED, "overloaded")
    assert (job.room_waits, provider.plans, origin.counts["a"]) == (3, 2, 2)
    assert again(fetcher, job).state == JobState.DONE
    assert (asset().generation, fetcher.read(asset())) == (1, long_audio)


@pytest.fixture
def in_the_middle(hot_root, monkeypatch) -> Iterator[ExitStack]:
    """The disk is full from when ffmpeg makes the finished file until the stack is closed."""
    real = finish.run_ffmpeg
    with ExitStack() as stack:

        def run_on_a_full_disk(*args: object, **options: object) -> None:
            monkeypatch.setattr(finish, "run_ffmpeg", real)
            stack.enter_context(filled(hot_root, leaving=MIB // 2))
            real(*args, **options)

        monkeypatch.setattr(finish, "run_ffmpeg", run_on_a_full_disk)
        yield stack


def test_a_disk_that_fills_up_under_ffmpeg_is_no_fault_of_the_source(fetcher, origin, long_audio, in_the_middle):
    provider = serve(
        fetcher, origin.put("a", long_audio), finish="mp3", container="mp3", mime="audio/mpeg", duration_s=100
    )
    job = fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3"))
    assert (job.state, job.error_code, job.provider_errors) == (JobState.QUEUED, "overloaded", [])
    assert job_answer(job)["retry_at"]
    in_the_middle.close()
    assert again(fetcher, job).state == JobState.DONE
    assert provider.plans == 2
    assert origin.sent < len(long_audio) + MIB  # what was there is not fetched twice


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_wherever_the_disk_is_full_the_job_waits(fetcher, origin, long_audio, monkeypatch, number):
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    serve(fetcher, origin.put("a", long_audio), finish="mp3", container="mp3", mime="audio/mpeg", duration_s=100)
    monkeypatch.setattr(HotStore, "scratch_dir", full)
    job = fetcher.fetch(AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3"))
    assert (job.state, job.error_code) == (JobState.QUEUED, "overloaded")
