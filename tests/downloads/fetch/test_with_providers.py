"""The engine with the real providers, against the stand-ins of SaveTube and YouTube."""

import json
from dataclasses import replace

import psutil
import pytest
from mutagen.id3 import ID3

from apps.core.errors import QualityUnavailable
from apps.core.ffmpeg import probe_media
from apps.core.suspend import Suspend
from apps.downloads.documents import JobState
from apps.downloads.providers import savetube as savetube_module
from apps.downloads.providers.chain import ProviderChain
from apps.downloads.providers.savetube import SaveTubeProvider
from apps.downloads.providers.ytdlp import YtDlpProvider
from apps.downloads.selectors import find_job
from apps.downloads.services import info
from apps.downloads.services.answers import job_answer, quality_of
from apps.downloads.services.cache_stats import cache_stats
from apps.downloads.services.jobs import cancel_job
from apps.downloads.services.media import MediaAsk, resolve_key
from apps.downloads.variants import MediaOptions
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from apps.telegram_cache.services import touch_asset
from tests.downloads.fetch.test_formats import sound_of
from tests.standins.savetube import TEST_KEY, SaveTubeStandIn, SaveTubeVideo
from tests.standins.youtube import YouTubeStandIn
from tests.standins.youtube_videos import YouTubeVideo
from tests.waiting import wait_until

VIDEO_ID = "fetchtest01"
M4A_ITAG = 140


@pytest.fixture
def savetube(fetcher):
    with SaveTubeStandIn() as site:
        provider = SaveTubeProvider(base_url=site.api_url, key_hex=TEST_KEY, cdn_suffixes=("127.0.0.1",))
        fetcher.providers.append(provider)
        yield site
        provider.close()


@pytest.fixture
def youtube(fetcher):
    with YouTubeStandIn() as site:
        provider = YtDlpProvider(options=json.loads(site.settings["YTDLP_OPTIONS"]), children=1)
        fetcher.providers.append(provider)
        yield site
        provider.close()


def key(kind: MediaKind, variant: str) -> AssetKey:
    return AssetKey(VIDEO_ID, kind, variant)


def test_mp3_from_savetube_is_taken_as_it_is(fetcher, savetube):
    job = fetcher.fetch(key(MediaKind.AUDIO, "mp3"))
    assert (job.state, job.provider) == (JobState.DONE, "savetube")
    assert fetcher.read(Asset.objects.get()) == savetube.file_of(VIDEO_ID, "audio")


def test_mp3_from_savetube_gets_tags_when_they_are_wanted_and_keeps_its_sound(fetcher, savetube, tmp_path):
    job = fetcher.fetch(key(MediaKind.AUDIO, "mp3.tags"))
    assert (job.state, job.provider) == (JobState.DONE, "savetube")
    made = fetcher.path(Asset.objects.get())
    assert ID3(made)["TIT2"].text == [Asset.objects.get().title]
    original = tmp_path / "original.mp3"
    original.write_bytes(savetube.file_of(VIDEO_ID, "audio"))
    assert sound_of(made) == sound_of(original)


def test_video_from_savetube_plays_from_its_start(fetcher, savetube):
    assert fetcher.fetch(key(MediaKind.VIDEO, "360p")).state == JobState.DONE
    data = fetcher.read(Asset.objects.get())
    assert data.index(b"moov") < data.index(b"mdat")


def test_m4a_from_youtube_after_savetube_could_not(fetcher, savetube, youtube):
    job = fetcher.fetch(key(MediaKind.AUDIO, "m4a"))
    assert (job.state, job.provider) == (JobState.DONE, "ytdlp")
    assert fetcher.read(Asset.objects.get()) == youtube.file_of(VIDEO_ID, M4A_ITAG)


@pytest.fixture
def asked_for(fetcher, monkeypatch):
    """The key of what somebody asks for, with the sources of this test and nobody else's help."""

    def ask(wish: str, **options: object) -> AssetKey:
        chain = ProviderChain(fetcher.providers)
        monkeypatch.setattr(info, "provider_chain", lambda: chain)
        asked = MediaAsk(kind=MediaKind.VIDEO, video_id=VIDEO_ID, wish=wish, options=MediaOptions(**options))
        for _ in range(3):
            try:
                return resolve_key(asked, waited_s=0)
            except Suspend as waits:
                resolve = info.resolve_pictures if waits.topic.startswith("pictures:") else info.resolve_info
                resolve(VIDEO_ID)
        raise AssertionError("it should be known by now")

    return ask


@pytest.mark.parametrize(
    ("options", "variant"),
    [({"fps": 60}, "360p10"), ({"codec": "h264"}, "360p.h264"), ({"fps": 60, "codec": "h264"}, "360p10.h264")],
)
def test_what_savetube_cannot_promise_comes_from_a_source_that_can(
    fetcher, savetube, youtube, asked_for, options, variant
):
    assert asked_for("360").variant == "360p"  # SaveTube's word
    assert savetube.counts["info"] == 1
    wanted = asked_for("best", **options)
    assert wanted.variant == variant
    job = fetcher.fetch(wanted)
    assert (job.state, job.provider) == (JobState.DONE, "ytdlp")
    asset = Asset.objects.get()
    assert (savetube.counts["info"], savetube.counts["download"]) == (1, 0)
    assert (quality_of(asset), asset.height, round(asset.fps)) == (variant, 360, 10)


def test_without_such_a_source_nothing_is_promised_and_the_failure_is_remembered(fetcher, savetube, asked_for):
    for _ in range(2):
        with pytest.raises(QualityUnavailable):
            asked_for("best", codec="h264")
    assert savetube.counts["info"] == 0
    assert asked_for("best").variant == "360p"  # what needs no promise goes on


def test_a_cancel_ends_a_call_that_savetube_does_not_answer(fetcher, savetube, monkeypatch):
    monkeypatch.setattr(savetube_module, "CALL_TIMEOUT_S", 3600.0)
    savetube.faults.add("info", delay_s=3600)
    job = fetcher.job(key(MediaKind.AUDIO, "mp3"))
    fetching = fetcher.begin(job)
    wait_until(lambda: savetube.counts["info"])
    cancel_job(job.id)
    fetching.join(30)
    assert not fetching.is_alive()
    assert Asset.objects.get().lease_owner is None


def test_a_clip_in_another_container_needs_no_promise(fetcher, savetube, asked_for):
    job = fetcher.fetch(asked_for("360", container="mkv", start_s=1.0, end_s=3.0))
    assert (job.state, job.provider) == (JobState.DONE, "savetube")
    asset = Asset.objects.get()
    assert (asset.container, quality_of(asset)) == ("mkv", "360p.mkv.clip-1000-3000")
    assert fetcher.read(asset).startswith(b"\x1a\x45\xdf\xa3")


def test_a_clip_of_an_mp3_needs_no_promise_and_its_length_is_measured(fetcher, savetube):
    job = fetcher.fetch(key(MediaKind.AUDIO, "mp3.clip-1000-3000"))
    assert (job.state, job.provider) == (JobState.DONE, "savetube")
    assert Asset.objects.get().duration_s == pytest.approx(2, abs=0.2)


def test_a_bitrate_is_a_promise_that_savetube_cannot_make(fetcher, savetube):
    job = fetcher.fetch(key(MediaKind.AUDIO, "mp3-320"))
    assert (job.state, job.error_code, savetube.counts["info"]) == (JobState.FAILED, "quality_unavailable", 0)


def test_a_lower_height_than_was_asked_for_is_called_what_it_is(fetcher, savetube):
    savetube.videos[VIDEO_ID] = SaveTubeVideo(title="Bare", drop=frozenset({"video_formats"}))
    job = fetcher.fetch(key(MediaKind.VIDEO, "720p"))
    asset = Asset.objects.get()
    assert (asset.variant, asset.height, quality_of(asset)) == ("720p", 360, "360p")
    told = job_answer(job)
    assert (told["state"], told["quality"], told["measured_quality"]) == ("done", "720p", "360p")
    touch_asset(asset.id)
    [used] = cache_stats()["most_used"]
    assert (used["quality"], used["measured_quality"]) == ("720p", "360p")


@pytest.mark.parametrize(("variant", "container"), [("opus", "webm"), ("mp3", "mp3")])
def test_other_audio_from_youtube(fetcher, youtube, variant, container):
    assert fetcher.fetch(key(MediaKind.AUDIO, variant)).state == JobState.DONE
    asset = Asset.objects.get()
    assert asset.container == container
    assert probe_media(fetcher.path(asset)).audio_codec == variant


def test_best_video_and_audio_from_youtube_are_joined(fetcher, youtube):
    assert fetcher.fetch(key(MediaKind.VIDEO, "360p")).state == JobState.DONE
    facts = probe_media(fetcher.path(Asset.objects.get()))
    assert (facts.height, facts.video_codec, facts.audio_codec) == (360, "h264", "aac")


def test_a_refused_media_address_is_extracted_again(fetcher, youtube):
    youtube.faults.add(f"media:{VIDEO_ID}", status=403)
    assert fetcher.fetch(key(MediaKind.AUDIO, "m4a")).state == JobState.DONE


@pytest.mark.parametrize(
    "fault", [{"cut_after_bytes": 20_000}, {"stall_after_bytes": 20_000}, {"status": 429, "retry_after_s": 0}]
)
def test_a_cut_a_stall_and_a_429_are_gone_on_from_with_one_more_request(fetcher, youtube, fault):
    fetcher.limits = replace(fetcher.limits, stall_s=1)
    youtube.faults.add(f"media:{VIDEO_ID}", **fault)
    assert fetcher.fetch(key(MediaKind.AUDIO, "m4a")).state == JobState.DONE
    assert fetcher.read(Asset.objects.get()) == youtube.file_of(VIDEO_ID, M4A_ITAG)
    assert (youtube.counts[f"media:{VIDEO_ID}"], youtube.counts[f"watch:{VIDEO_ID}"]) == (2, 1)


@pytest.mark.parametrize(
    ("video_id", "code", "asked"),
    [("private0001", "video_private", 1), ("geoblock001", "geo_blocked", 1), ("upcoming001", "live_not_supported", 1),
     ("livenow0001", "live_not_supported", 1), ("agelimit001", "age_restricted", 1), ("botcheck001", "bot_check", 1)],
)  # fmt: skip
def test_what_youtube_refuses_costs_one_question_and_no_media(fetcher, youtube, video_id, code, asked):
    job = fetcher.fetch(AssetKey(video_id, MediaKind.AUDIO, "m4a"))
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert (youtube.counts[f"watch:{video_id}"], youtube.counts[f"media:{video_id}"]) == (asked, 0)


def test_a_private_video_ends_the_job_with_its_code(fetcher, savetube, youtube):
    job = fetcher.fetch(AssetKey("private0001", MediaKind.AUDIO, "m4a"))
    assert (job.state, job.error_code) == (JobState.FAILED, "video_private")
    (said,) = [error for error in job.provider_errors if error["code"] == "video_private"]
    assert (said["provider"], said["attempt"]) == ("ytdlp", 1)
    assert said["took_s"] > 0


def test_a_video_that_turns_private_meanwhile_says_which_source_told(fetcher, youtube):
    youtube.faults.add(f"media:{VIDEO_ID}", status=403, delay_s=0.5)
    job = fetcher.job(key(MediaKind.AUDIO, "m4a"))
    thread = fetcher.begin(job)
    wait_until(lambda: youtube.counts[f"media:{VIDEO_ID}"])
    youtube.videos[VIDEO_ID] = YouTubeVideo(title="", state="private")
    thread.join(20)
    job = find_job(job.id)
    assert job.error_code == "video_private"
    assert [(error["provider"], error["code"]) for error in job.provider_errors] == [("ytdlp", "video_private")]


def test_cancelling_while_youtube_is_asked_ends_the_process_and_its_connection(fetcher, youtube):
    youtube.faults.add("watch", delay_s=3600)
    job = fetcher.job(key(MediaKind.AUDIO, "m4a"))
    thread = fetcher.begin(job)
    wait_until(lambda: youtube.counts["watch"])
    askers = [
        child for child in psutil.Process().children() if "apps.downloads.providers.ytdlp_child" in child.cmdline()
    ]
    assert len(askers) == 1
    cancel_job(job.id)
    thread.join(10)
    assert not thread.is_alive()
    wait_until(lambda: not askers[0].is_running() and not youtube._pipes)
    assert find_job(job.id).state == JobState.CANCELLED
