"""Fetches that fail for a passing reason: tried again by themselves, a bounded number of times."""

import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from apps.core.errors import UpstreamError, VideoPrivate
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.fetch.outcomes import Limits
from apps.downloads.selectors import find_job
from apps.downloads.services import queue, retrying
from apps.downloads.services.answers import job_answer
from apps.downloads.services.jobs import cancel_job
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind, Part, PartState
from tests.downloads.fetch.origin import SampleProvider
from tests.downloads.fetch.test_engine import asset, serve
from tests.downloads.library import CONTENT, put_hot
from tests.downloads.samples import audio_key


@pytest.fixture
def patient(fetcher):
    fetcher.limits = replace(fetcher.limits, retry_delays_s=(5.0, 10.0))
    return fetcher


def failing(fetcher, error) -> SampleProvider:
    provider = SampleProvider(make_plan=error)
    fetcher.providers.append(provider)
    return provider


def its_time_has_come() -> None:
    MediaJob.objects.update(unset__not_before=1)


def test_it_goes_back_in_line_and_says_why_and_when(patient):
    failing(patient, UpstreamError("Down."))
    job = patient.fetch(audio_key())
    assert (job.state, job.active, job.attempts, job.failures) == (JobState.QUEUED, True, 1, 1)
    shown = job_answer(job)
    assert (shown["failure"], shown["last_failure"]["code"]) == (None, "upstream_error")
    assert shown["retry_at"]
    assert (asset().state, asset().lease_owner) == (AssetState.QUEUED, None)
    assert queue.pick_job()[0] is None  # not before its time


def test_it_fails_for_good_after_so_many_tries_with_each_failure_on_record(patient):
    provider = failing(patient, UpstreamError("Down."))
    job = patient.job(audio_key())
    for _ in range(3):
        job = patient.run(job)
        its_time_has_come()
    assert (job.state, job.active, job.attempts, provider.plans) == (JobState.FAILED, False, 3, 3)
    assert job_answer(job)["failure"]["code"] == "upstream_error"
    assert job.retry_at > job.finished_at
    assert [error["attempt"] for error in job.provider_errors] == [1, 2, 3]


def test_the_next_try_can_succeed_and_then_nothing_of_the_failure_is_left_but_its_record(patient, origin, media):
    failing(patient, UpstreamError("Down."))
    job = patient.fetch(audio_key())
    patient.providers.clear()
    serve(patient, origin.put("a", media.read("audio.m4a")))
    its_time_has_come()
    assert queue.pick_job()[0] == job.id
    job = patient.run(job)
    shown = job_answer(job)
    assert (job.state, shown["last_failure"], shown["retry_at"]) == (JobState.DONE, None, None)
    assert [error["code"] for error in shown["provider_errors"]] == ["upstream_error"]
    assert shown["provider_took_s"] > 0


@pytest.mark.parametrize("error", [VideoPrivate(), UpstreamError(retry_after_s=60)])
def test_what_lasts_is_not_waited_for(patient, error):
    failing(patient, error)
    job = patient.fetch(audio_key())
    assert (job.state, job.attempts) == (JobState.FAILED, 1)


def test_a_job_that_waits_can_be_cancelled(patient):
    failing(patient, UpstreamError("Down."))
    job = patient.fetch(audio_key())
    cancel_job(job.id)
    assert (find_job(job.id).state, asset().state) == (JobState.CANCELLED, AssetState.ABSENT)


def test_a_cancel_in_the_very_moment_leaves_no_asset_that_waits_for_nothing(patient, monkeypatch):
    failing(patient, UpstreamError("Down."))
    job, release = patient.job(audio_key()), retrying.release_claim

    def cancelled_meanwhile(*args, **options):
        monkeypatch.setattr(retrying, "release_claim", release)
        cancel_job(job.id)
        release(*args, **options)

    monkeypatch.setattr(retrying, "release_claim", cancelled_meanwhile)
    assert patient.run(job).state == JobState.CANCELLED
    assert asset().state == AssetState.ABSENT


def test_by_default_it_is_tried_three_times_within_half_a_minute():
    delays = Limits().retry_delays_s
    assert (len(delays), sum(delays) < 30) == (2, True)


@dataclass
class Disk:
    is_full: bool = True


@pytest.fixture
def disk(monkeypatch) -> Disk:
    """A large disk, full as long as it says so."""
    disk, real = Disk(), shutil.disk_usage
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(total=10**12, free=0) if disk.is_full else real(path)
    )
    return disk


class TestNoRoom:
    @pytest.fixture
    def full(self, fetcher, origin, media, disk):
        """A disk that is full, and a source that has the file."""
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        fetcher.limits = replace(fetcher.limits, room_delays_s=(5.0, 10.0))
        return fetcher

    def test_the_job_waits_for_room_and_then_is_done(self, full, disk):
        job = full.fetch(audio_key())
        assert (job.state, job.error_code, job.room_waits, job.failures) == (JobState.QUEUED, "overloaded", 1, 0)
        assert queue.pick_job()[0] is None  # not before its time
        disk.is_full = False
        its_time_has_come()
        assert full.run(job).state == JobState.DONE

    def test_waiting_has_a_bound(self, full):
        job = full.job(audio_key())
        for _ in range(3):
            job = full.run(job)
            its_time_has_come()
        assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "overloaded", 3)

    def test_what_may_leave_the_disk_leaves_it_at_once(self, full, disk):
        stored = AssetKey("otherotherx", MediaKind.AUDIO, "m4a")
        disk.is_full = False
        put_hot(stored)
        disk.is_full = True
        part = Part(index=0, offset=0, size=len(CONTENT), state=PartState.STORED.value)
        Asset.objects(id=stored.asset_id).update_one(set__state=AssetState.CACHED.value, set__parts=[part])
        full.fetch(audio_key())
        assert full.store.open(stored.asset_id, 1) is None

    def test_an_earlier_fetch_that_still_writes_is_waited_for(self, full, disk):
        disk.is_full = False
        job = full.job(audio_key())
        with full.store.create(job.asset_id, 1, resume=False):
            waiting = full.run(job)
        assert (waiting.state, waiting.room_waits, waiting.full_in_a_row) == (JobState.QUEUED, 1, 0)
        its_time_has_come()
        assert full.run(job).state == JobState.DONE

    def test_by_default_room_is_waited_for_half_an_hour(self):
        assert 1700 < sum(Limits().room_delays_s) < 1900
