"""Limits of a key on videos, files and fetches, where they are decided."""

from __future__ import annotations

import asyncio

import pytest

from apps.core.errors import FileTooLarge, KeyDisabled, KeyInvalid, NotReady, Overloaded, TooManyJobs, VideoTooLong
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import MediaJob
from apps.downloads.services import job_limits
from apps.downloads.services.batches import advance_batch
from apps.downloads.services.jobs import cancel_job, ensure_job, finish_job
from apps.downloads.services.key_limits import is_too_large
from apps.downloads.services.media import MediaAsk, Tier, request_media, start_or_join
from apps.downloads.stream_backend import make_backend
from apps.keys import job_slots
from apps.keys.changes import update_key
from apps.keys.services import revoke_key
from apps.telegram_cache.documents import MediaKind
from tests.downloads.library import AUDIO, CONTENT, VIDEO_ID, begin_fetch, known_info, put_hot
from tests.downloads.racers import ask_for_new_jobs, race
from tests.downloads.samples import audio_key, video_info
from tests.downloads.test_stream_backend import by_link

DURATION_S = 212.4


def limit(api, **fields) -> None:
    update_key(api.prefix, fields, actor="tester")


def ask(prefix: str, video_id: str) -> MediaJob:
    return ensure_job(key=audio_key(video_id), info=video_info(video_id), key_prefix=prefix)


def request(api):
    return request_media(MediaAsk(kind=MediaKind.AUDIO, video_id=VIDEO_ID), key_prefix=api.prefix, wait_s=0, waited_s=0)


class TestAKeyThatIsOff:
    def test_has_its_limits_still_and_begins_nothing(self, api):
        known_info()
        limit(api, largest_file_bytes=5)
        revoke_key(api.prefix)
        for begin in (lambda: request(api), lambda: ask(api.prefix, "video000001")):
            with pytest.raises(KeyDisabled):
                begin()
        assert MediaJob.objects.count() == 0
        assert (is_too_large(api.prefix, 5), is_too_large(api.prefix, 6)) == (False, True)

    def test_is_no_more_than_one_that_nobody_knows(self, api):
        with pytest.raises(KeyInvalid):
            ask("nobodyyy", VIDEO_ID)
        assert not is_too_large("nobodyyy", 10**12)

    def test_the_server_itself_has_no_limits(self, api):
        assert ask("", VIDEO_ID).active


class TestLongestVideo:
    def test_exactly_the_limit_is_let_through_and_a_second_more_is_not(self, api):
        known_info()
        limit(api, longest_video_s=212)
        with pytest.raises(VideoTooLong) as refused:
            request(api)
        assert refused.value.context == {"limit_s": 212, "duration_s": DURATION_S}
        assert MediaJob.objects.count() == 0
        limit(api, longest_video_s=213)
        assert request(api).tier is Tier.EXTERNAL
        assert MediaJob.objects.count() == 1

    def test_a_file_that_is_there_is_refused_too(self, api, other_api):
        put_hot(AUDIO)
        limit(api, longest_video_s=212)
        with pytest.raises(VideoTooLong):
            start_or_join(AUDIO, key_prefix=api.prefix, waited_s=0)
        assert start_or_join(AUDIO, key_prefix=other_api.prefix, waited_s=0).tier is Tier.HOT

    def test_the_api_answers_403(self, api):
        known_info()
        limit(api, longest_video_s=10)
        answer = api.get("audio", url=VIDEO_ID)
        assert (answer.status_code, answer.json()["error"], answer.json()["limit_s"]) == (403, "video_too_long", 10)

    def test_trying_a_job_again_is_no_way_round(self, api):
        known_info()
        job = request(api).job
        cancel_job(job.id)
        limit(api, longest_video_s=10)
        answer = api.post(f"jobs/{job.id}/retry", {})
        assert (answer.status_code, answer.json()["error"]) == (403, "video_too_long")
        assert MediaJob.objects.count() == 1


class TestLargestFile:
    def test_exactly_the_limit_is_let_through_and_a_byte_more_is_not(self, api):
        put_hot(AUDIO)
        limit(api, largest_file_bytes=len(CONTENT))
        assert start_or_join(AUDIO, key_prefix=api.prefix, waited_s=0).tier is Tier.HOT
        limit(api, largest_file_bytes=len(CONTENT) - 1)
        with pytest.raises(FileTooLarge) as refused:
            start_or_join(AUDIO, key_prefix=api.prefix, waited_s=0)
        assert refused.value.context == {"limit_bytes": len(CONTENT) - 1, "size_bytes": len(CONTENT)}

    async def test_a_link_made_before_is_refused_once_the_size_is_known(self, api):
        backend = make_backend()
        await asyncio.to_thread(put_hot, AUDIO)
        target = await backend.open_target(by_link(api))
        assert target.size_bytes == len(CONTENT)
        await asyncio.to_thread(limit, api, largest_file_bytes=5)
        with pytest.raises(FileTooLarge):
            await backend.open_target(by_link(api))
        await backend.aclose()

    async def test_a_file_on_its_way_is_refused_when_its_size_is_told(self, api):
        backend = make_backend()
        limit(api, largest_file_bytes=5)
        ask(api.prefix, VIDEO_ID)
        _, writer = begin_fetch(AUDIO, CONTENT[:1000], size_bytes=len(CONTENT))
        with pytest.raises(FileTooLarge):
            await backend.open_target(by_link(api))
        writer.close()
        await backend.aclose()


class TestJobsAtOnce:
    def test_the_limit_is_reached_not_passed_and_a_place_is_free_when_a_fetch_ends(self, api):
        limit(api, concurrent_jobs=2)
        first, second = (ask(api.prefix, f"video{number:06}") for number in range(2))
        with pytest.raises(TooManyJobs) as refused:
            ask(api.prefix, "video000002")
        assert (refused.value.status, refused.value.retry_after_s) == (429, 10)
        assert ask(api.prefix, "video000000").id == first.id  # its own fetch is no new one
        finish_job(first.id)
        third = ask(api.prefix, "video000002")
        with pytest.raises(TooManyJobs):
            ask(api.prefix, "video000003")
        cancel_job(third.id, key_prefix=api.prefix)
        ask(api.prefix, "video000003")
        assert second.active

    def test_joining_somebody_elses_fetch_takes_a_place_too_and_leaving_frees_it(self, api, other_api):
        known_info()
        limit(api, concurrent_jobs=1)
        job = start_or_join(AUDIO, key_prefix=other_api.prefix, waited_s=0).job
        assert start_or_join(AUDIO, key_prefix=api.prefix, waited_s=0).job.id == job.id
        with pytest.raises(TooManyJobs):
            ask(api.prefix, "video000001")
        cancel_job(job.id, key_prefix=api.prefix)
        assert MediaJob.objects.get(id=job.id).active  # the other key still waits
        ask(api.prefix, "video000001")

    def test_what_is_there_takes_no_place(self, api):
        put_hot(AUDIO)
        limit(api, concurrent_jobs=1)
        start_or_join(AUDIO, key_prefix=api.prefix, waited_s=0)
        ask(api.prefix, "video000001")

    def test_never_more_than_the_limit_over_processes(self, api):
        limit(api, concurrent_jobs=7)
        begun = race(ask_for_new_jobs, api.prefix, 3, processes=3, threads=4)
        assert sum(begun) == 7
        assert MediaJob.objects(active=True).count() == 7

    def test_places_that_nobody_gave_back_are_found_when_they_are_in_the_way(self, api, monkeypatch):
        limit(api, concurrent_jobs=2)
        name = job_slots.set_name(api.prefix)
        ask(api.prefix, "video000000")
        now_ms = int(redis_client().time()[0]) * 1000
        redis_client().zadd(name, {"lost": now_ms - job_slots.YOUNG_S * 1000 - 1})
        ask(api.prefix, "video000001")
        redis_client().zadd(name, {"young": now_ms})
        redis_client().zrem(name, audio_key("video000001").asset_id)
        with pytest.raises(TooManyJobs):  # it may be about to begin
            ask(api.prefix, "video000002")

    def test_a_batch_waits_for_its_turn_instead_of_failing(self, api):
        known_info()
        limit(api, concurrent_jobs=1)
        job = ask(api.prefix, "video000000")
        batch_id = api.post("batch", {"urls": [VIDEO_ID]}).json()["id"]
        advance_batch(batch_id)
        assert api.get(f"batch/{batch_id}").json()["entries"][0]["state"] == "queued"
        assert MediaJob.objects(active=True).count() == 1
        finish_job(job.id)
        advance_batch(batch_id)
        assert MediaJob.objects.get(active=True).video_id == VIDEO_ID

    def test_without_redis_mongodb_is_asked(self, api, monkeypatch, settings):
        limit(api, concurrent_jobs=1)
        monkeypatch.setattr(job_slots.health, "is_away", lambda: True)
        monkeypatch.setattr(job_slots.health, "note_failure", lambda: None)
        ask(api.prefix, "video000000")
        with pytest.raises(TooManyJobs):
            ask(api.prefix, "video000001")
        settings.ENV = settings.ENV.model_copy(update={"limits_on_redis_loss": "deny"})
        with pytest.raises(NotReady):
            ask(api.prefix, "video000000")

    def test_a_fetch_that_is_refused_as_the_queue_is_full_takes_no_place(self, api, monkeypatch):
        limit(api, concurrent_jobs=1)
        with monkeypatch.context() as full:
            full.setattr(job_limits, "max_active_jobs", lambda: 0)
            with pytest.raises(Overloaded):
                ask(api.prefix, "video000000")
        assert ask(api.prefix, "video000001").active

    def test_keys_without_a_limit_and_the_server_itself_take_no_places(self, api):
        ask(api.prefix, "video000000")
        ask("", "video000001")
        assert not redis_client().keys("yt:jobs:*")


def test_a_link_without_metadata_is_limited_once_it_is_known(api):
    limit(api, longest_video_s=10)
    with pytest.raises(Suspend):
        request(api)
    known_info()
    with pytest.raises(VideoTooLong):
        request(api)
