import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from apps.core.clock import utcnow
from apps.core.errors import BotCheck, QualityUnavailable, VideoPrivate
from apps.core.ffmpeg import probe_media
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.fetch import engine, making
from apps.downloads.selectors import find_job
from apps.streaming.hotstore import FileState
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind
from tests.downloads.fetch.origin import SampleProvider, remote
from tests.downloads.samples import VIDEO_ID, audio_key, audio_plan
from tests.waiting import wait_until

MIB = 1024 * 1024
VIDEO = AssetKey(VIDEO_ID, MediaKind.VIDEO, "360p")


def serve(fetcher, url, *, name="sample", file=None, **changes):
    """A provider that plans ``url``, tried after those there are."""
    fields = {"duration_s": 6.0, "files": (remote(url, **(file or {})),), **changes}
    provider = SampleProvider(name=name, make_plan=lambda key: audio_plan(**{"key": key, **fields}))
    fetcher.providers.append(provider)
    return provider


def asset() -> Asset:
    return Asset.objects.get()


class TestDirect:
    def test_the_asset_is_the_file_with_its_hashes(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        job = fetcher.fetch(audio_key())
        done = asset()
        assert (job.state, job.stage, job.bytes_done, job.bytes_total) == (
            "done",
            "done",
            len(long_audio),
            len(long_audio),
        )
        assert (done.state, done.size_bytes, done.generation) == (AssetState.READY, len(long_audio), 1)
        assert fetcher.read(done) == long_audio
        assert done.sha256 == hashlib.sha256(long_audio).hexdigest()
        blocks = [long_audio[at : at + MIB] for at in range(0, len(long_audio), MIB)]
        assert done.block_hashes == [hashlib.sha256(block).digest() for block in blocks]
        assert origin.counts["a"] == 1

    def test_a_second_call_and_a_late_message_do_nothing(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        job = fetcher.fetch(audio_key())
        fetcher.run(job)
        MediaJob.objects.update_one(set__active=True, set__state=JobState.QUEUED.value)
        assert fetcher.run(job).state == JobState.DONE
        assert origin.counts["a"] == 1

    def test_readers_follow_while_it_arrives(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", stall_after_bytes=MIB)
        fetcher.limits = replace(fetcher.limits, stall_s=3)
        job = fetcher.job(audio_key())
        thread = fetcher.begin(job)
        wait_until(lambda: fetcher.store.open(job.asset_id, 1))
        hot_file = fetcher.store.open(job.asset_id, 1)
        wait_until(lambda: hot_file.available_from(0) == MIB)
        assert hot_file.size_bytes == len(long_audio)
        assert bytes(hot_file.view(0, MIB)) == long_audio[:MIB]
        seen = asset()
        assert (seen.state, seen.title, seen.mime) == (AssetState.FETCHING, "A song $5", "audio/mp4")
        wait_until(lambda: find_job(job.id).bytes_done == MIB)
        assert (find_job(job.id).stage, find_job(job.id).bytes_total) == ("downloading", len(long_audio))
        thread.join(20)
        assert hot_file.state == FileState.FINAL
        hot_file.close()

    def test_who_waits_hears_of_the_file_and_of_its_first_bytes_at_once(self, fetcher, origin, media, monkeypatch):
        monkeypatch.setattr(engine, "BEAT_S", 3600)  # so that nothing here is told by the heartbeat
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        told = []

        def note(topic):
            hot_file = fetcher.store.open(audio_key().asset_id, 1)
            told.append((topic, hot_file.state.name if hot_file else None, hot_file and hot_file.available_from(0) > 0))
            if hot_file:
                hot_file.close()

        monkeypatch.setattr(making, "publish", note)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        topic = f"asset:{audio_key().asset_id}"
        assert told == [(topic, "GROWING", False), (topic, "GROWING", True)]

    def test_a_size_that_nobody_declares_is_measured(self, fetcher, origin, media):
        data = media.read("audio.m4a")
        serve(fetcher, origin.put("a", data, send_length=False, ranges=False))
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().size_bytes, fetcher.read(asset())) == (len(data), data)

    def test_ranges_of_the_planned_size_are_asked_for(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), file={"chunk_bytes": MIB}, duration_s=100)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert fetcher.read(asset()) == long_audio
        assert origin.asked[:2] == [f"bytes=0-{MIB - 1}", f"bytes={MIB}-{2 * MIB - 1}"]
        assert origin.sent == len(long_audio)


class TestFinishing:
    def test_a_faststart_mp4_is_taken_as_it_is(self, fetcher, origin, media):
        data = media.read("fast360.mp4")
        serve(fetcher, origin.put("v", data), finish="remux", container="mp4", mime="video/mp4")
        assert fetcher.fetch(VIDEO).state == JobState.DONE
        assert fetcher.read(asset()) == data

    @pytest.mark.parametrize("name", ["muxed360.mp4", "video360.mp4"])
    def test_another_mp4_gets_its_index_to_the_front(self, fetcher, origin, media, name):
        serve(fetcher, origin.put("v", media.read(name)), finish="remux", container="mp4", mime="video/mp4")
        assert fetcher.fetch(VIDEO).state == JobState.DONE
        done = fetcher.read(asset())
        assert 0 < done.index(b"moov") < done.index(b"mdat")
        assert done.count(b"moof") == 0
        assert asset().sha256 == hashlib.sha256(done).hexdigest()
        assert not list((fetcher.store.root / ".scratch").glob("*/*"))

    def test_video_and_audio_are_joined(self, fetcher, origin, media):
        files = (remote(origin.put("v", media.read("video360.mp4"))), remote(origin.put("a", media.read("audio.m4a"))))
        serve(fetcher, "", files=files, finish="mux", container="mp4", mime="video/mp4")
        job = fetcher.fetch(VIDEO)
        assert job.state == JobState.DONE
        facts = probe_media(fetcher.path(asset()))
        assert (facts.video_codec, facts.audio_codec, facts.height) == ("h264", "aac", 360)
        assert abs(asset().duration_s - 6) < 0.5

    def test_mp3_is_made_from_another_format(self, fetcher, origin, media):
        key = AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3")
        serve(fetcher, origin.put("a", media.read("audio.webm")), finish="mp3", container="mp3", mime="audio/mpeg")
        assert fetcher.fetch(key).state == JobState.DONE
        facts = probe_media(fetcher.path(asset()))
        assert (facts.audio_codec, facts.video_codec) == ("mp3", None)
        assert abs(facts.duration_s - 6) < 0.5


class TestWrongContent:
    @pytest.mark.parametrize(
        ("data", "options"),
        [
            (b"<html><body>Sorry</body></html>" * 400, {"content_type": "text/html"}),
            (b"<html><body>Sorry</body></html>" * 400, {"content_type": "audio/mp4"}),
            (b"", {}),
            (b"", {"send_length": False}),
            (b"\0\0\0\x1cftypdash" + bytes(20_000), {"content_type": "audio/mp4"}),
        ],
    )
    def test_what_is_not_media_never_becomes_an_asset(self, fetcher, origin, data, options):
        serve(fetcher, origin.put("a", data, **options))
        job = fetcher.fetch(audio_key())
        assert (job.state, job.error_code) == (JobState.FAILED, "upstream_error")
        assert asset().state == AssetState.FAILED
        assert not fetcher.store.is_complete(job.asset_id, 1)

    def test_video_in_place_of_audio_is_refused(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("video360.mp4")))
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    def test_another_container_than_planned_is_refused_before_anybody_sees_it(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.webm")))
        job = fetcher.fetch(audio_key())
        assert job.error_code == "upstream_error"
        assert fetcher.store.open(job.asset_id, 1) is None

    def test_another_length_than_the_video_has_is_refused(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.m4a")), duration_s=60)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    def test_a_file_of_unknown_size_that_was_cut_is_noticed(self, fetcher, origin, long_audio):
        served = long_audio[: len(long_audio) // 2]
        serve(fetcher, origin.put("a", served, send_length=False, ranges=False), duration_s=100)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    def test_too_large_is_said_so(self, fetcher, origin, media):
        fetcher.limits = replace(fetcher.limits, file_max_bytes=1000)
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        assert fetcher.fetch(audio_key()).error_code == "too_large"

    def test_a_full_disk_is_a_clear_retryable_error(self, fetcher, origin, media):
        fetcher.limits = replace(fetcher.limits, room_bytes=2**60)
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        job = fetcher.fetch(audio_key())
        assert job.error_code == "overloaded"
        assert "disk" in job.error_message
        assert job.retry_at < utcnow() + timedelta(seconds=16)


class TestProviders:
    def test_the_next_one_is_tried_and_the_failure_is_noted(self, fetcher, origin, media):
        fetcher.providers.append(SampleProvider(name="first", make_plan=BotCheck()))
        serve(fetcher, origin.put("gone", b""), name="second")
        serve(fetcher, origin.put("a", media.read("audio.m4a")), name="third")
        job = fetcher.fetch(audio_key())
        assert (job.state, job.provider) == (JobState.DONE, "third")
        noted = [(failure["provider"], failure["code"]) for failure in job.provider_errors]
        assert noted == [("first", "bot_check"), ("second", "upstream_error")]
        assert fetcher.read(asset()) == media.read("audio.m4a")

    def test_bytes_of_two_providers_never_mix(self, fetcher, origin, media, long_audio):
        serve(fetcher, origin.put("broken", long_audio), name="first", duration_s=100)
        origin.faults.add("broken", cut_after_bytes=MIB)
        origin.faults.add("broken", status=500, times=99)
        serve(fetcher, origin.put("a", media.read("audio.m4a")), name="second")
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().generation, fetcher.read(asset())) == (2, media.read("audio.m4a"))
        assert fetcher.store.open(asset().id, 1) is None

    def test_a_content_error_stops_the_chain(self, fetcher, origin, media):
        fetcher.providers.append(SampleProvider(name="first", make_plan=VideoPrivate()))
        second = serve(fetcher, origin.put("a", media.read("audio.m4a")))
        job = fetcher.fetch(audio_key())
        assert (job.error_code, second.plans) == ("video_private", 0)
        assert timedelta(minutes=9) < asset().retry_at - utcnow() <= timedelta(minutes=10)

    def test_a_variant_that_nobody_has_is_said_so(self, fetcher):
        fetcher.providers.append(SampleProvider(make_plan=QualityUnavailable()))
        assert fetcher.fetch(audio_key()).error_code == "quality_unavailable"

    def test_after_a_refused_address_the_next_one_is_tried_when_the_first_lacks_the_variant_now(
        self, fetcher, origin, media
    ):
        first = serve(fetcher, origin.put("refused", b"x"), name="first")
        origin.faults.add("refused", status=403)
        plans = [replace(first.make_plan(audio_key()), provider="first"), QualityUnavailable()]

        def plan(key, *, timeout_s, fresh=False):
            answer = plans.pop(0)
            if isinstance(answer, QualityUnavailable):
                raise answer
            return answer

        first.plan = plan
        serve(fetcher, origin.put("a", media.read("audio.m4a")), name="second")
        job = fetcher.fetch(audio_key())
        assert (job.state, job.provider) == (JobState.DONE, "second")
        assert [(e["provider"], e["code"]) for e in job.provider_errors] == [("first", "quality_unavailable")]

    def test_a_fault_of_ours_fails_the_job_without_its_details(self, fetcher, origin, media, monkeypatch):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        monkeypatch.setattr(engine.Maker, "make", lambda *_: 1 / 0)
        job = fetcher.fetch(audio_key())
        assert (job.state, job.error_code) == (JobState.FAILED, "internal_error")
        assert "zero" not in job.error_message
