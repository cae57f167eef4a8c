import multiprocessing
from datetime import timedelta

import pytest

from apps.core.clock import utcnow
from apps.core.errors import Conflict, NotFound, Overloaded, UpstreamError, VideoUnavailable
from apps.core.owners import make_owner
from apps.core.queues import NotSent
from apps.core.redis import redis_client
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.selectors import active_job, find_job
from apps.downloads.services import claims, job_limits, jobs, media, turns
from apps.downloads.services.queue import pick_job
from apps.downloads.services.sweep import FETCH_QUEUE, send_unsent, sweep_jobs
from apps.telegram_cache.documents import Asset, AssetState, Part, PartState
from tests.downloads.racers import ask_for_job, claim_and_hold, race
from tests.downloads.samples import VIDEO_ID, audio_key, known_key, video_info

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root", "_keys")


@pytest.fixture
def _keys(mongo):
    for prefix in ("testkey1", "testkey2"):
        known_key(prefix)


def ask() -> MediaJob:
    return jobs.ensure_job(key=audio_key(), info=video_info(), key_prefix="testkey1")


def claim(owner: str = "one") -> claims.Claim:
    return claims.claim_asset(key=audio_key(), owner=owner, lease_s=3600)


def not_sent(*_arguments: object, **_options: object) -> None:
    """As ``send_task`` in a process that does not reach Redis."""
    raise NotSent("ConnectionError")


def messages() -> int:
    return redis_client().llen(FETCH_QUEUE)


def finish_asset(*, stored: bool) -> None:
    held = claim()
    claims.commit_ready(held, size_bytes=3, sha256="a" * 64, block_hashes=[b"x" * 32], duration_s=1)
    if stored:
        part = Part(index=0, offset=0, size=3, state=PartState.STORED.value)
        Asset.objects.update_one(set__state=AssetState.CACHED.value, set__parts=[part])


class TestEnsureJob:
    def test_a_thousand_callers_in_many_processes_make_one_job(self):
        found = race(ask_for_job, VIDEO_ID, 5, processes=4, threads=50)
        assert len(found) == 200
        assert len(set.union(*found)) == 1
        assert MediaJob.objects.count() == 1
        assert messages() == 1

    def test_the_asset_is_queued_and_carries_what_is_known(self):
        job = ask()
        asset = Asset.objects.get()
        assert (asset.id, asset.state, asset.title) == (job.asset_id, AssetState.QUEUED, "A song $5")
        assert (job.key_prefix, job.state) == ("testkey1", JobState.QUEUED)

    def test_a_failed_asset_gives_its_error_until_it_may_be_tried_again(self):
        job = ask()
        retry_at = claims.commit_failed(claim(), UpstreamError("The source is on fire."))
        jobs.finish_job(job.id, error=UpstreamError(), retry_at=retry_at)
        with pytest.raises(UpstreamError, match="on fire") as caught:
            ask()
        assert 0 < caught.value.retry_after_s <= 15
        Asset.objects.update_one(set__retry_at=utcnow() - timedelta(seconds=1))
        again = ask()
        assert again.id != job.id
        assert Asset.objects.get().state == AssetState.QUEUED

    def test_a_failure_while_somebody_asks_is_not_forgotten(self, monkeypatch):
        job = ask()

        def fails_meanwhile(asset_id):
            claims.commit_failed(claim(), UpstreamError("The source is on fire."))
            jobs.finish_job(job.id, error=UpstreamError())
            return active_job(asset_id)

        monkeypatch.setattr(jobs, "active_job", fails_meanwhile)
        with pytest.raises(UpstreamError, match="on fire"):
            ask()
        assert Asset.objects.get().state == AssetState.FAILED
        assert MediaJob.objects.count() == 1

    def test_also_when_it_comes_right_before_the_new_job(self, monkeypatch):
        job = ask()
        looks = []

        def fails_after_the_look(asset_id):
            looks.append(asset_id)
            return active_job(asset_id) if len(looks) > 1 else None

        def queue_and_fail(asset):
            claims.commit_failed(claim(), UpstreamError("The source is on fire."))
            jobs.finish_job(job.id, error=UpstreamError())
            return True

        monkeypatch.setattr(jobs, "active_job", fails_after_the_look)
        monkeypatch.setattr(jobs, "_queue", queue_and_fail)
        sent = messages()
        with pytest.raises(UpstreamError, match="on fire"):
            ask()
        assert MediaJob.objects.count() == 1
        assert messages() == sent

    def test_an_asset_that_is_removed_right_before_the_new_job_leaves_none_behind(self, monkeypatch):
        make = MediaJob.save

        def remove_and_save(job, **options):
            Asset.objects(id=job.asset_id).delete()
            return make(job, **options)

        monkeypatch.setattr(MediaJob, "save", remove_and_save)
        with pytest.raises(Conflict):
            ask()
        assert MediaJob.objects.count() == 0
        assert messages() == 0

    def test_a_new_job_knows_what_the_last_one_had(self):
        job = ask()
        jobs.update_job(job.id, resume={"source_id": "sample:1"})
        jobs.cancel_job(job.id)
        assert ask().resume == {"source_id": "sample:1"}

    def test_an_asset_in_telegram_is_not_fetched_again(self):
        job = ask()
        finish_asset(stored=True)
        jobs.finish_job(job.id)
        assert ask().id == job.id
        assert active_job(job.asset_id) is None

    def test_an_asset_that_came_without_a_job_gives_a_finished_one(self):
        finish_asset(stored=True)
        job = ask()
        assert (job.state, job.active) == (JobState.DONE, False)
        assert MediaJob.objects.count() == 0

    def test_an_asset_whose_bytes_are_nowhere_is_fetched_again_under_a_new_generation(self):
        job = ask()
        finish_asset(stored=False)
        jobs.finish_job(job.id)
        again = ask()
        asset = Asset.objects.get()
        assert again.id != job.id
        assert (asset.state, asset.generation, asset.size_bytes) == (AssetState.QUEUED, 2, None)
        assert asset.block_hashes == []

    def test_too_many_waiting_jobs_are_refused(self, monkeypatch):
        monkeypatch.setattr(job_limits, "max_active_jobs", lambda: 1)
        ask()
        with pytest.raises(Overloaded) as caught:
            jobs.ensure_job(key=audio_key("aaaaaaaaaaa"), info=video_info("aaaaaaaaaaa"), key_prefix="testkey1")
        assert caught.value.retry_after_s
        ask()  # joining one is still possible

    def test_a_key_with_too_many_waiting_jobs_leaves_room_for_others(self, monkeypatch):
        monkeypatch.setattr(job_limits, "max_active_jobs_per_key", lambda: 1)
        ask()
        other = {"key": audio_key("aaaaaaaaaaa"), "info": video_info("aaaaaaaaaaa")}
        with pytest.raises(Overloaded):
            jobs.ensure_job(**other, key_prefix="testkey1")
        assert jobs.ensure_job(**other, key_prefix="testkey2").active

    def test_who_waits_now_moves_a_batch_job_up(self):
        job = jobs.ensure_job(key=audio_key(), info=video_info(), key_prefix="testkey1", priority=JobPriority.BATCH)
        assert job.priority == JobPriority.BATCH
        ask()
        assert find_job(job.id).priority == JobPriority.INTERACTIVE


class TestStartOrJoin:
    def test_asset_and_job_that_another_request_makes_right_now_are_found(self, monkeypatch):
        looks = []

        def look_right_before_they_are_made(asset_id):
            looks.append(asset_id)
            if len(looks) > 1:
                return Asset.objects.get(id=asset_id)
            ask()
            return None

        monkeypatch.setattr(media, "find_asset", look_right_before_they_are_made)
        state = media.start_or_join(audio_key(), key_prefix="", waited_s=0)
        assert (state.asset.id, state.tier, state.job.active) == (audio_key().asset_id, media.Tier.EXTERNAL, True)
        assert MediaJob.objects.count() == 1


class TestRefetchAsset:
    def test_forgets_the_parts_and_starts_a_new_generation(self):
        finish_asset(stored=True)
        job = jobs.refetch_asset(audio_key().asset_id)
        asset = Asset.objects.get()
        assert (asset.generation, asset.parts, asset.state) == (2, [], AssetState.QUEUED)
        assert jobs.refetch_asset(asset.id).id == job.id
        assert Asset.objects.get().generation == 2

    def test_an_unknown_asset_is_not_found(self):
        with pytest.raises(NotFound):
            jobs.refetch_asset("0" * 24)


class TestCancelJob:
    def test_ends_a_waiting_job_once(self):
        job = ask()
        assert jobs.cancel_job(job.id).state == JobState.CANCELLED
        assert jobs.cancel_job(job.id).state == JobState.CANCELLED
        assert Asset.objects.get().state == AssetState.ABSENT
        assert not jobs.update_job(job.id, bytes_done=1)

    def test_a_job_of_another_key_is_not_found(self):
        job = ask()
        with pytest.raises(NotFound):
            jobs.cancel_job(job.id, key_prefix="otherkey")
        assert find_job(job.id).active

    def test_a_finished_job_stays_finished(self):
        job = ask()
        jobs.finish_job(job.id)
        assert jobs.cancel_job(job.id).state == JobState.DONE


class TestSweepJobs:
    def test_leaves_alone_what_is_in_the_queue_or_running(self):
        job = ask()
        assert sweep_jobs() == 0
        claims.claim_asset(key=audio_key(), owner=make_owner(), lease_s=3600)
        jobs.start_job(job.id)
        redis_client().flushdb()
        assert sweep_jobs() == 0

    def test_sends_a_lost_message_again_once(self):
        job = ask()
        redis_client().flushdb()
        MediaJob.objects(id=job.id).update_one(set__updated_at=utcnow() - timedelta(seconds=20))
        assert sweep_jobs() == 1
        assert sweep_jobs() == 0
        assert messages() == 1

    def test_a_message_that_could_not_be_sent_goes_out_without_waiting(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(turns, "send_task", not_sent)
            job = ask()
        assert messages() == 0
        assert (send_unsent(), messages()) == (1, 1)
        assert (send_unsent(), messages()) == (0, 1)
        assert find_job(job.id).state == JobState.QUEUED

    def test_a_message_that_can_still_not_be_sent_is_tried_again(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(turns, "send_task", not_sent)
            ask()
            send_unsent()
        assert (send_unsent(), messages()) == (1, 1)

    def test_a_message_for_later_that_could_not_be_sent_waits_for_its_time(self, monkeypatch):
        job = ask()
        redis_client().flushdb()
        pick_job()
        with monkeypatch.context() as patch:
            patch.setattr(turns, "send_task", not_sent)
            jobs.requeue_job(job.id, delay_s=3600)
        assert (send_unsent(), messages()) == (0, 0)
        MediaJob.objects(id=job.id).update_one(set__not_before=utcnow() - timedelta(seconds=1))
        assert (send_unsent(), messages()) == (1, 1)

    def test_a_job_that_got_another_ones_turn_needs_no_message_any_more(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(turns, "send_task", not_sent)
            job = ask()
        assert pick_job().job_id == job.id
        assert (send_unsent(), messages()) == (0, 0)
        assert find_job(job.id).unsent is None

    def test_does_not_add_to_a_long_queue(self):
        job = ask()
        MediaJob.objects(id=job.id).update_one(set__updated_at=utcnow() - timedelta(seconds=20))
        assert sweep_jobs() == 0
        assert messages() == 1

    def test_frees_the_lease_of_a_dead_process_at_once(self):
        job = ask()
        child = multiprocessing.get_context("spawn").Process(target=_die_with_a_claim, args=(VIDEO_ID,))
        child.start()
        child.join(30)
        jobs.start_job(job.id)
        assert sweep_jobs() == 1
        assert find_job(job.id).state == JobState.QUEUED
        assert claim("two").won

    def test_a_lease_that_ran_out_is_picked_up(self):
        job = ask()
        claim("another machine")
        jobs.start_job(job.id)
        assert sweep_jobs() == 0
        Asset.objects.update_one(set__lease_until=utcnow() - timedelta(seconds=1))
        assert sweep_jobs() == 1


def _die_with_a_claim(video_id: str) -> None:
    import django

    django.setup()
    claim_and_hold(video_id)


def test_finishing_with_an_error_ends_the_job_with_its_code():
    job = ask()
    jobs.finish_job(job.id, error=VideoUnavailable())
    found = find_job(job.id)
    assert (found.state, found.error_code, found.active) == (JobState.FAILED, "video_unavailable", False)
