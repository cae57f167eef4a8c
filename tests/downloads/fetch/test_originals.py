"""Files that are made from a stored one: no byte of media comes from outside."""

from datetime import timedelta

import pytest

from apps.core.clock import utcnow
from apps.core.ffmpeg import probe_media
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.fetch import originals
from apps.downloads.services import job_limits
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind, Part, PartState
from tests.downloads.fetch.origin import remote
from tests.downloads.fetch.test_engine import serve
from tests.downloads.fetch.test_formats import sound_of
from tests.downloads.library import known_info
from tests.downloads.samples import VIDEO_ID

CLIP = ".clip-1000-3000"
VIDEO_VARIANT = "360p"


def audio(variant: str) -> AssetKey:
    return AssetKey(VIDEO_ID, MediaKind.AUDIO, variant)


def video(variant: str) -> AssetKey:
    return AssetKey(VIDEO_ID, MediaKind.VIDEO, variant)


@pytest.fixture
def stored(fetcher, origin, media):
    """Fetches one variant, and then the sources have nothing any more."""

    def fetch(key: AssetKey, name: str, **plan: object) -> Asset:
        serve(fetcher, "", files=(remote(origin.put(name, media.read(name))),), **plan)
        assert fetcher.fetch(key).state == JobState.DONE
        fetcher.providers.clear()
        return Asset.objects.get(id=key.asset_id)

    return fetch


def make(fetcher, key: AssetKey) -> Asset:
    job = fetcher.fetch(key)
    assert (job.state, job.provider) == (JobState.DONE, "cache"), job.error_message
    return Asset.objects.get(id=key.asset_id)


def test_a_clip_of_a_sound_is_cut_from_the_stored_file(fetcher, stored):
    stored(audio("m4a"), "audio.m4a")
    made = make(fetcher, audio(f"m4a{CLIP}"))
    assert made.duration_s == pytest.approx(2, abs=0.2)
    assert (made.container, made.mime, made.state) == ("m4a", "audio/mp4", AssetState.READY)


def test_a_clip_of_a_video_is_cut_from_the_stored_file(fetcher, stored):
    stored(video(VIDEO_VARIANT), "muxed360.mp4", finish="remux", container="mp4", mime="video/mp4")
    made = make(fetcher, video(f"{VIDEO_VARIANT}{CLIP}"))
    facts = probe_media(fetcher.path(made))
    assert (facts.height, facts.audio_codec) == (360, "aac")
    assert 1.8 <= facts.duration_s <= 4.1


def test_tags_are_added_to_the_stored_file_whose_sound_stays(fetcher, stored):
    original = stored(audio("m4a"), "audio.m4a")
    made = make(fetcher, audio("m4a.tags"))
    assert sound_of(fetcher.path(made)) == sound_of(fetcher.path(original))


@pytest.mark.parametrize("variant", ["mp3", "mp3-128", f"mp3-128{CLIP}"])
def test_an_mp3_is_encoded_from_the_stored_original(fetcher, stored, variant):
    stored(audio("m4a"), "audio.m4a")
    assert make(fetcher, audio(variant)).audio_codec == "mp3"


def test_nothing_is_encoded_twice(fetcher, stored):
    stored(audio("m4a"), "audio.m4a")
    make(fetcher, audio("mp3"))
    Asset.objects(variant="m4a").delete()
    assert fetcher.fetch(audio("mp3-128")).state == JobState.FAILED  # asked outside, where there is nothing
    make(fetcher, audio(f"mp3{CLIP}"))  # copied, not encoded


def test_the_stored_file_may_leave_the_disk_meanwhile_and_stays_as_it_is(fetcher, stored, monkeypatch):
    original = stored(audio("m4a"), "audio.m4a")
    data, link = fetcher.read(original), originals.os.link

    def link_and_evict(source, target):
        link(source, target)
        fetcher.store.remove(original.id, original.generation)

    monkeypatch.setattr(originals.os, "link", link_and_evict)
    made = make(fetcher, audio("m4a.tags"))
    assert fetcher.read(made) != data
    assert not list((fetcher.store.root / ".scratch").rglob("original"))


def test_one_that_cannot_be_read_back_is_fetched_from_outside(fetcher, stored, origin, media, redis_server):
    original = stored(audio("m4a"), "audio.m4a")
    part = Part(index=0, offset=0, size=original.size_bytes, state=PartState.STORED.value)
    Asset.objects.update(set__state=AssetState.CACHED.value, set__parts=[part])
    fetcher.store.remove(original.id, original.generation)  # and no bot is there to bring it back
    serve(fetcher, origin.put("outside", media.read("audio.m4a")), finish="remux")
    job = fetcher.fetch(audio("m4a.tags"))
    assert (job.state, job.provider) == (JobState.DONE, "sample")


def test_a_key_has_a_limit_of_clips_a_day(api, monkeypatch):
    monkeypatch.setattr(job_limits, "clips_per_day", lambda: 2)
    known_info()
    answers = [api.get("audio", url=VIDEO_ID, start=number, end=number + 1) for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"] == "quota_exceeded"
    assert int(answers[2].headers["Retry-After"]) > 0
    assert api.get("audio", url=VIDEO_ID, start=0, end=1).status_code == 200  # is being made already
    assert api.get("audio", url=VIDEO_ID).status_code == 200  # is no clip
    MediaJob.objects.update(set__created_at=utcnow() - timedelta(hours=25))
    assert api.get("audio", url=VIDEO_ID, start=7, end=8).status_code == 200
