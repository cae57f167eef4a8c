"""A file of unknown size that becomes too large for a key: the documented error for that key, and for nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.core.errors import FileTooLarge
from apps.core.redis import redis_client
from apps.downloads.documents import JobState, MediaJob, WebhookDelivery
from apps.downloads.fetch import engine
from apps.downloads.selectors import active_assets, find_job
from apps.downloads.services.jobs import ensure_job
from apps.downloads.services.joining import note_joined
from apps.downloads.services.media import start_or_join
from apps.downloads.services.turning_away import as_seen_by
from apps.keys.changes import update_key
from apps.keys.job_slots import set_name
from apps.keys.services import create_key
from apps.keys.webhooks import set_webhook
from apps.telegram_cache.documents import Asset, AssetState
from tests.downloads.fetch.test_engine import serve
from tests.downloads.library import known_info
from tests.downloads.samples import VIDEO_ID, audio_key, video_info
from tests.waiting import wait_until

MIB = 1024 * 1024
LIMIT = 500_000


@pytest.fixture
def small(mongo, redis_server) -> str:
    """A key that may have small files only, and has a webhook."""
    prefix = create_key(name="small", largest_file_bytes=LIMIT, concurrent_jobs=5).document.prefix
    set_webhook(prefix, "https://bot.example.org/hook", actor="tester")
    return prefix


@pytest.fixture
def large(mongo, redis_server) -> str:
    return create_key(name="large").document.prefix


@pytest.fixture
def begun(fetcher, origin, long_audio, monkeypatch):
    """Begins fetching a file whose size the source does not tell, for a key; it stops for a while after a MiB."""
    monkeypatch.setattr(engine, "TURN_AWAY_EVERY_S", 0.0)
    serve(fetcher, origin.put("a", long_audio, send_length=False), duration_s=100)
    origin.faults.add("a", stall_after_bytes=MIB)
    fetcher.limits = replace(fetcher.limits, stall_s=2)

    def begin(prefix: str, *others: str):
        job = engine_job(prefix)
        for other in others:
            note_joined(job, key_prefix=other)
        return job, fetcher.begin(job)

    return begin


def engine_job(prefix: str) -> MediaJob:
    return ensure_job(key=audio_key(), info=video_info(VIDEO_ID), key_prefix=prefix)


class TestTheOnlyOneWhoWaits:
    def test_gets_the_error_and_the_fetch_stops_and_somebody_else_can_have_the_file(
        self, begun, fetcher, small, large, long_audio
    ):
        job, thread = begun(small)
        thread.join(20)
        ended = find_job(job.id)
        assert (ended.state, ended.error_code, ended.active) == (JobState.FAILED, "file_too_large", False)
        assert (Asset.objects.get().state, Asset.objects.get().error_code) == (AssetState.ABSENT, None)
        assert redis_client().zcard(set_name(small)) == 0
        assert WebhookDelivery.objects(job_id=job.id, key_prefix=small).count() == 1
        again = fetcher.run(engine_job(large))
        assert again.state == JobState.DONE
        assert fetcher.read(Asset.objects.get()) == long_audio

    def test_is_told_at_once_when_it_asks_again_and_nothing_is_fetched(self, begun, fetcher, origin, small):
        known_info(VIDEO_ID)
        job, thread = begun(small)
        thread.join(20)
        asked = origin.counts["a"]
        for _ in range(2):
            with pytest.raises(FileTooLarge) as refused:
                start_or_join(audio_key(), key_prefix=small, waited_s=0)
            assert refused.value.context["limit_bytes"] == LIMIT
            assert refused.value.context["size_bytes"] >= MIB
        assert (MediaJob.objects.count(), origin.counts["a"]) == (1, asked)
        update_key(small, {"largest_file_bytes": 0}, actor="tester")
        assert start_or_join(audio_key(), key_prefix=small, waited_s=0).job.id != job.id


class TestWhoWaitsWithOthers:
    def test_is_turned_away_and_the_fetch_goes_on_for_them(self, begun, fetcher, small, large, long_audio):
        job, thread = begun(small, large)
        wait_until(lambda: small in find_job(job.id).too_large_for)
        seen = as_seen_by(find_job(job.id), small)
        assert (seen.state, seen.active, seen.error_code) == (JobState.FAILED, False, "file_too_large")
        assert as_seen_by(find_job(job.id), large).state == JobState.RUNNING
        assert (active_assets(small), active_assets(large)) == (set(), {job.asset_id})
        wait_until(lambda: WebhookDelivery.objects(job_id=job.id).distinct("key_prefix") == [small])
        with pytest.raises(FileTooLarge):
            start_or_join(audio_key(), key_prefix=small, waited_s=0)
        thread.join(30)
        assert find_job(job.id).state == JobState.DONE
        assert fetcher.read(Asset.objects.get()) == long_audio
        with pytest.raises(FileTooLarge):
            start_or_join(audio_key(), key_prefix=small, waited_s=0)
        assert start_or_join(audio_key(), key_prefix=large, waited_s=0).job is None

    def test_the_servers_own_wish_counts_as_somebody(self, begun, fetcher, small):
        job, thread = begun("", small)
        thread.join(30)
        assert find_job(job.id).state == JobState.DONE


def test_bytes_that_are_encoded_anew_say_nothing_about_the_file(fetcher, origin, media, small, monkeypatch):
    monkeypatch.setattr(engine, "TURN_AWAY_EVERY_S", 0.0)
    update_key(small, {"largest_file_bytes": 1}, actor="tester")
    serve(fetcher, origin.put("a", media.read("audio.m4a")), finish="mp3", container="mp3", mime="audio/mpeg")
    origin.faults.add("a", stall_after_bytes=1000)
    fetcher.limits = replace(fetcher.limits, stall_s=1)
    job = fetcher.run(engine_job(small))
    assert (job.state, job.size_at_least) == (JobState.DONE, None)
