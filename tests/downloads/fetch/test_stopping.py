"""Every way in which a fetch can be cut short, and what the next attempt makes of it."""

import hashlib
import threading
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest
from pymongo.errors import PyMongoError

from apps.core.clock import utcnow
from apps.core.errors import VideoPrivate
from apps.core.ffmpeg import probe_media
from apps.core.owners import make_owner
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.fetch import engine, finish
from apps.downloads.selectors import find_job
from apps.downloads.services import jobs
from apps.downloads.services.claims import claim_asset
from apps.downloads.services.jobs import cancel_job
from apps.downloads.services.sweep import sweep_jobs
from apps.streaming.hotstore import FileState
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from tests.downloads.fetch.origin import SampleProvider, remote
from tests.downloads.fetch.test_engine import MIB, VIDEO, asset, serve
from tests.downloads.samples import audio_key
from tests.standins.media import make_media
from tests.waiting import wait_until


class TestStopping:
    def test_a_cancelled_job_stops_its_transfer_within_a_second_or_two(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", bytes_per_s=20_000)  # it takes minutes
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        wait_until(lambda: find_job(job.id).bytes_done)
        cancel_job(job.id)
        thread.join(60)
        assert not thread.is_alive()
        assert (asset().state, asset().lease_owner) == (AssetState.ABSENT, None)
        assert fetcher.store.open(job.asset_id, 1).state == FileState.FAILED

    def test_a_cancelled_job_stops_ffmpeg_and_its_file_goes(self, fetcher, origin, long_audio, monkeypatch):
        monkeypatch.setattr(finish, "_cut", lambda plan: ["-re"])  # ffmpeg reads no faster than the sound plays: 100 s
        serve(fetcher, origin.put("a", long_audio), finish="mp3", container="mp3", duration_s=100)
        job = fetcher.job(AssetKey("dQw4w9WgXcQ", MediaKind.AUDIO, "mp3"))
        thread = fetcher.begin(job)
        scratch = fetcher.store.root / ".scratch"
        wait_until(lambda: [path for path in scratch.rglob("finished-*") if path.stat().st_size])
        programs = psutil.Process().children(recursive=True)
        assert [program for program in programs if "ffmpeg" in program.name()]
        cancel_job(job.id)
        thread.join(60)
        assert not thread.is_alive()
        assert not [program for program in programs if program.is_running() and "ffmpeg" in program.name()]
        assert list(scratch.rglob("finished-*")) == []
        assert (asset().state, asset().lease_owner) == (AssetState.ABSENT, None)

    def test_a_new_job_after_a_cancelled_one_goes_on_from_its_bytes(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", stall_after_bytes=3 * MIB)
        fetcher.limits = replace(fetcher.limits, stall_s=120)
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        wait_until(lambda: find_job(job.id).bytes_done == 3 * MIB)
        cancel_job(job.id)
        thread.join(60)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert fetcher.read(asset()) == long_audio
        assert origin.sent <= len(long_audio) + 64 * 1024

    def test_a_job_cancelled_while_a_source_plans_gives_its_asset_back_at_once(self, fetcher, origin, media):
        provider = serve(fetcher, origin.put("a", media.read("audio.m4a")))
        planning, go_on = threading.Event(), threading.Event()
        provider.before_plan = lambda: (planning.set(), go_on.wait(120))
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        assert planning.wait(60)
        cancel_job(job.id)
        wait_until(lambda: asset().lease_owner is None)
        assert asset().state == AssetState.ABSENT
        go_on.set()
        thread.join(60)
        assert origin.counts["a"] == 0

    def test_an_interrupted_join_of_two_files_goes_on_from_both(self, fetcher, origin, media, long_audio):
        large = make_media("large")
        video = large.read("video360.mp4")
        files = (remote(origin.put("v", video)), remote(origin.put("a", long_audio)))
        serve(fetcher, "", files=files, finish="mux", container="mp4", mime="video/mp4", duration_s=100)
        origin.faults.add("v", stall_after_bytes=MIB)
        fetcher.limits = replace(fetcher.limits, stall_s=120)
        job = fetcher.job(VIDEO)
        thread = fetcher.begin(job)
        wait_until(lambda: find_job(job.id).bytes_done == MIB + len(long_audio))
        engine.stopping.set()
        thread.join(60)
        engine.stopping.clear()
        assert fetcher.run(job).state == JobState.DONE
        assert origin.counts == {"v": 2, "a": 1}
        assert origin.sent <= len(video) + len(long_audio) + 64 * 1024
        assert probe_media(fetcher.path(asset())).duration_s == pytest.approx(100, abs=1)
        assert not list((fetcher.store.root / ".scratch").glob("*/*"))

    def test_other_addresses_for_another_file_do_not_go_on_from_scratch_files(self, fetcher, origin, media):
        urls = [origin.put(name, media.read(name)) for name in ("video360.mp4", "audio.m4a", "video240.mp4")]
        plans = [(urls[0], urls[1]), (urls[2], urls[1])]
        provider = serve(fetcher, "", finish="mux", container="mp4", mime="video/mp4")
        make = provider.make_plan
        provider.make_plan = lambda key: replace(make(key), files=tuple(remote(url) for url in plans.pop(0)))
        origin.faults.add("video360.mp4", cut_after_bytes=50_000)
        origin.faults.add("video360.mp4", status=403)
        assert fetcher.fetch(VIDEO).state == JobState.DONE
        assert probe_media(fetcher.path(asset())).height == 240

    def test_a_new_job_waits_for_the_old_fetch_to_end(self, fetcher, redis_server):
        job = fetcher.job(audio_key())
        claim_asset(key=audio_key(), owner="a fetch that is just ending", lease_s=30)
        sent = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "send_fetch", lambda *arguments, **options: sent.append((arguments, options)))
            fetcher.run(job)
        assert sent == [((job.id,), {"delay_s": engine.BUSY_RETRY_S})]

    def test_a_stopping_worker_leaves_a_job_that_can_go_on(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", stall_after_bytes=2 * MIB)
        fetcher.limits = replace(fetcher.limits, stall_s=120)
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        wait_until(lambda: find_job(job.id).bytes_done == 2 * MIB)
        engine.stopping.set()
        thread.join(60)
        engine.stopping.clear()
        assert not thread.is_alive()
        assert (asset().state, find_job(job.id).active) == (AssetState.QUEUED, True)
        assert sweep_jobs() == 1
        assert fetcher.run(job).state == JobState.DONE
        assert origin.sent <= len(long_audio) + 64 * 1024

    def test_an_owner_that_lost_its_lease_stops_and_commits_nothing(self, fetcher, origin, media, monkeypatch):
        provider = serve(fetcher, origin.put("a", media.read("audio.m4a")))

        def lose_the_lease():
            Asset.objects.update_one(set__lease_until=utcnow() - timedelta(seconds=1))
            assert claim_asset(key=audio_key(), owner="somebody else", lease_s=30).won

        provider.before_plan = lose_the_lease
        job = fetcher.fetch(audio_key())
        assert (asset().state, asset().lease_owner) == (AssetState.FETCHING, "somebody else")
        assert job.active
        assert origin.counts["a"] == 0

    def test_the_heartbeat_ends_a_fetch_whose_asset_was_taken_over(self, fetcher, origin, long_audio, monkeypatch):
        monkeypatch.setattr(engine, "RENEW_EVERY_S", 0)
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", stall_after_bytes=MIB)
        fetcher.limits = replace(fetcher.limits, stall_s=120)
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        wait_until(lambda: find_job(job.id).bytes_done == MIB)
        Asset.objects.update_one(set__lease_owner="somebody else", inc__attempt=1)
        thread.join(60)
        assert not thread.is_alive()
        assert asset().lease_owner == "somebody else"

    def test_a_job_that_keeps_dying_is_given_up(self, fetcher):
        job = fetcher.job(audio_key())
        for _ in range(engine.MAX_CRASHES + 1):  # as if the worker died right after each of these
            jobs.start_job(job.id)
        assert find_job(job.id).crashes == engine.MAX_CRASHES
        job = fetcher.run(job)
        assert (job.state, job.error_code) == (JobState.FAILED, "upstream_error")

    def test_workers_that_die_while_bytes_keep_coming_do_not_end_a_job(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        job = fetcher.job(audio_key())
        for number in range(3 * engine.MAX_CRASHES):
            jobs.start_job(job.id)
            jobs.update_job(job.id, bytes_done=number)
        assert fetcher.run(job).state == JobState.DONE

    def test_any_number_of_restarts_of_the_worker_does_not_end_a_job(self, fetcher, origin, long_audio):
        provider = serve(fetcher, origin.put("a", long_audio), duration_s=100)
        provider.before_plan = engine.stopping.set
        job = fetcher.job(audio_key())
        try:
            for _ in range(engine.MAX_CRASHES + 2):
                engine.stopping.clear()
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(engine, "BEAT_S", 0.01)
                    origin.faults.add("a", stall_after_bytes=MIB)
                    fetcher.run(job)
        finally:
            engine.stopping.clear()
        job = find_job(job.id)
        assert (job.active, job.crashes, job.attempts) == (True, 0, engine.MAX_CRASHES + 2)

    def test_nothing_happens_while_another_process_fetches(self, fetcher, origin):
        job = fetcher.job(audio_key())
        claim_asset(key=audio_key(), owner=make_owner(), lease_s=30)
        MediaJob.objects.update_one(set__attempts=1, set__state=JobState.RUNNING.value)
        assert fetcher.run(job).state == JobState.RUNNING

    def test_a_failed_asset_ends_a_job_that_was_left_open(self, fetcher):
        fetcher.providers.append(SampleProvider(make_plan=VideoPrivate()))
        job = fetcher.fetch(audio_key())
        MediaJob.objects.update_one(set__active=True, set__state=JobState.RUNNING.value, unset__error_code=1)
        again = fetcher.run(job)
        assert (again.active, again.error_code) == (False, "video_private")

    @pytest.mark.parametrize("finish", ["direct", "mux"])
    def test_a_crash_right_before_the_commit_downloads_nothing_again(self, fetcher, origin, media, finish, monkeypatch):
        urls = [origin.put(name, media.read(name)) for name in ("video360.mp4", "audio.m4a")]
        key = VIDEO if finish == "mux" else audio_key()
        files = tuple(remote(url) for url in (urls if finish == "mux" else urls[1:]))
        container = "mp4" if finish == "mux" else "m4a"
        serve(fetcher, "", files=files, finish=finish, container=container)
        job = fetcher.job(key)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "commit_ready", _die)
            fetcher.run(job)
        assert asset().state == AssetState.FETCHING
        Asset.objects.update_one(set__lease_until=utcnow() - timedelta(seconds=1))
        assert sweep_jobs() == 1
        assert fetcher.run(job).state == JobState.DONE
        assert hashlib.sha256(fetcher.read(asset())).hexdigest() == asset().sha256
        assert set(origin.counts.values()) == {1}


def _die(*_: object, **__: object) -> None:
    raise AutoReconnectForGood


class AutoReconnectForGood(PyMongoError):
    """The database does not come back within our patience."""
