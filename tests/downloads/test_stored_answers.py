"""What is stored answers the questions it was fetched for, also where nothing is known of the video any more."""

from __future__ import annotations

import io
import threading
from contextlib import closing

import pytest
from django.core.management import call_command

from apps.core import hot_names
from apps.core.errors import InvalidParameter, NotReady, UpstreamUnreachable, VideoUnavailable
from apps.core.heartbeats import HOT_STORES
from apps.core.hot_names import tell_hot_store
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import MediaJob
from apps.downloads.services import doubtful, flights, media
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import ensure_job, is_lost
from apps.downloads.services.media import MediaAsk, Tier, request_media
from apps.downloads.stream_records import AssetRecord
from apps.downloads.variants import MediaOptions
from apps.streaming.hotstore import HotStoreFull, blockmap
from apps.streaming.hotstore import store as hotstore
from apps.streaming.hotstore.rebuild import rebuild_map
from apps.telegram_cache.documents import BLOCK_BYTES, Asset, AssetKey, AssetState, MediaKind, Part, PartState
from apps.telegram_cache.selectors import find_asset
from tests.downloads.library import CONTENT, VIDEO_ID, known_info, put_in_telegram
from tests.waiting import wait_until

STORED = [
    (MediaKind.VIDEO, "1080p", True),
    (MediaKind.VIDEO, "480p", None),
    (MediaKind.VIDEO, "720p60.vp9.webm", None),
    (MediaKind.AUDIO, "m4a", True),
    (MediaKind.AUDIO, "mp3-320.clip-1000-5000", None),
]


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The videos whose metadata was asked for; nobody ever answers."""
    videos: list[str] = []
    for name in ("request_info", "renew_info"):
        monkeypatch.setattr(media, name, lambda video_id, **_: videos.append(video_id))
    return videos


@pytest.fixture
def imported(mongo, redis_server, hot_root, tmp_path) -> None:
    """Exported on one installation, imported on another, which knows nothing else."""
    for kind, variant, is_best in STORED:
        put_in_telegram(AssetKey(VIDEO_ID, kind, variant))
        Asset.objects(variant=variant).update(set__is_best=is_best)
    file = tmp_path / "cache.jsonl"
    call_command("cache", "export", str(file), stderr=io.StringIO())
    Asset.objects.delete()
    call_command("cache", "import", str(file), stdout=io.StringIO())
    assert Asset.objects.count() == len(STORED)


def given(kind: MediaKind, wish: str | None, **options: object) -> str:
    ask = MediaAsk(kind=kind, video_id=VIDEO_ID, wish=wish, options=MediaOptions(**options))
    state = request_media(ask, key_prefix="", wait_s=0, waited_s=0)
    assert state.tier is Tier.TELEGRAM
    return str(state.asset.variant)


class TestAFileOfAnotherHotStore:
    """This process sees another HOT_DIR than the workers do: it cannot know what is lost."""

    @pytest.fixture
    def asset(self, mongo, redis_server, hot_root, monkeypatch):
        monkeypatch.setattr(hot_names, "LIFE_S", 3600)
        asset = put_in_telegram(AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a"))
        known_info()
        Asset.objects(id=asset.id).update_one(set__state=AssetState.READY.value, unset__parts=1)
        redis_client().zadd(HOT_STORES, {"another": redis_client().time()[0]})
        return asset

    def test_is_waited_for_and_not_fetched_again(self, asset):
        ask = MediaAsk(kind=MediaKind.AUDIO, video_id=VIDEO_ID, wish="m4a")
        with pytest.raises(Suspend):
            request_media(ask, key_prefix="", wait_s=0, waited_s=0)
        with pytest.raises(NotReady, match="not in Telegram yet"):
            request_media(ask, key_prefix="", wait_s=0, waited_s=media.INFO_WAIT_S)
        with pytest.raises(NotReady):
            ensure_job(key=asset.key, info=known_info(), key_prefix="")
        assert MediaJob.objects.count() == 0
        assert find_asset(asset.id).generation == asset.generation

    def test_is_fetched_again_by_who_sees_the_store_of_the_workers(self, asset):
        tell_hot_store()
        ask = MediaAsk(kind=MediaKind.AUDIO, video_id=VIDEO_ID, wish="m4a")
        assert request_media(ask, key_prefix="", wait_s=0, waited_s=0).tier is Tier.EXTERNAL
        assert find_asset(asset.id).generation == asset.generation + 1


class TestABadPart:
    def test_whose_bytes_are_in_the_hot_file_is_not_fetched_from_outside(self, mongo, redis_server, hot_root):
        asset = put_in_telegram(AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a"))
        bad, stored = asset.parts[0], Part(**asset.parts[0].to_mongo().to_dict())
        stored.size, bad.index, bad.offset, bad.size = BLOCK_BYTES, 1, BLOCK_BYTES, bad.size - BLOCK_BYTES
        bad.state = PartState.BAD.value
        Asset.objects(id=asset.id).update_one(set__parts=[stored, bad], set__state=AssetState.READY.value)
        asset = find_asset(asset.id)
        assert (media.tier_of(asset), is_lost(asset)) == (Tier.EXTERNAL, True)
        hashes = asset.block_hashes
        hot_file = media.hot_store().open_sparse(asset.id, 1, size_bytes=asset.size_bytes, block_hashes=hashes)
        with closing(hot_file):
            assert (media.tier_of(asset), is_lost(asset)) == (Tier.EXTERNAL, True)
            hot_file.put_block(1, CONTENT[BLOCK_BYTES:], sha256=hashes[1])
        assert (media.tier_of(asset), is_lost(asset)) == (Tier.TELEGRAM, False)
        assert AssetRecord.of(asset).is_in_telegram

    def test_whose_bytes_an_earlier_boot_left_is_looked_at_beside_the_request(
        self, mongo, redis_server, hot_root, monkeypatch
    ):
        asset = put_in_telegram(AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a"))
        known_info()
        hashes = asset.block_hashes
        with closing(
            media.hot_store().open_sparse(asset.id, 1, size_bytes=asset.size_bytes, block_hashes=hashes)
        ) as hot_file:
            for block, digest in enumerate(hashes):
                data = CONTENT[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
                hot_file.put_block(block, data, sha256=digest)
        Asset.objects(id=asset.id).update_one(set__parts__0__state="bad", set__state=AssetState.READY.value)
        monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))
        monkeypatch.setattr(doubtful, "_looks", {})
        go_on, hashing_in = threading.Event(), []

        def slow_rebuild(*args):
            hashing_in.append(threading.current_thread().name)
            assert go_on.wait(20)
            return rebuild_map(*args)

        monkeypatch.setattr(hotstore, "rebuild_map", slow_rebuild)
        ask = MediaAsk(kind=MediaKind.AUDIO, video_id=VIDEO_ID, wish="m4a")
        for _ in range(3):
            with pytest.raises(Suspend) as waits:
                request_media(ask, key_prefix="", wait_s=0, waited_s=0)
            assert waits.value.topic == f"asset:{asset.id}"
        go_on.set()
        wait_until(lambda: media.hot_store().is_complete(asset.id, 1))
        state = request_media(ask, key_prefix="", wait_s=0, waited_s=0)
        assert (state.tier, len(hashing_in)) == (Tier.HOT, 1)
        assert hashing_in[0] != threading.current_thread().name
        assert MediaJob.objects.count() == 0

    def test_whose_file_of_an_earlier_boot_cannot_be_settled_is_fetched_anew(
        self, mongo, redis_server, hot_root, monkeypatch
    ):
        asset = put_in_telegram(AssetKey(VIDEO_ID, MediaKind.AUDIO, "m4a"))
        known_info()
        media.hot_store().open_sparse(asset.id, 1, size_bytes=asset.size_bytes, block_hashes=asset.block_hashes).close()
        Asset.objects(id=asset.id).update_one(set__parts__0__state="bad", set__state=AssetState.READY.value)
        monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))
        monkeypatch.setattr(doubtful, "_looks", {})
        looks = []

        def full(*_args):
            looks.append(1)
            raise HotStoreFull("no room")

        monkeypatch.setattr(hotstore, "rebuild_map", full)
        ask = MediaAsk(kind=MediaKind.AUDIO, video_id=VIDEO_ID, wish="m4a")
        with pytest.raises(Suspend):
            request_media(ask, key_prefix="", wait_s=0, waited_s=0)
        wait_until(lambda: looks and doubtful._looks[asset.id].done())
        assert request_media(ask, key_prefix="", wait_s=0, waited_s=0).tier is Tier.EXTERNAL
        assert find_asset(asset.id).generation == 2


@pytest.mark.usefixtures("imported")
class TestMadeFromWhatIsStored:
    """The video is gone outside, and nothing is known of it but what is stored."""

    @pytest.fixture(autouse=True)
    def gone(self, imported) -> None:
        record_info_error(VIDEO_ID, VideoUnavailable())

    def job_for(self, kind: MediaKind, wish: str | None, **options: object) -> str:
        ask = MediaAsk(kind=kind, video_id=VIDEO_ID, wish=wish, options=MediaOptions(**options))
        state = request_media(ask, key_prefix="", wait_s=0, waited_s=0)
        assert (state.tier, state.job.active) == (Tier.EXTERNAL, True)
        return str(state.job.variant)

    @pytest.mark.parametrize(
        ("kind", "wish", "options", "variant"),
        [
            ("video", "480", {"start_s": 1.0, "end_s": 9.0}, "480p.clip-1000-9000"),
            ("video", "720", {"start_s": 1.0, "end_s": 9.0}, "480p.clip-1000-9000"),
            ("video", None, {"start_s": 200.0}, "1080p.clip-200000-212400"),
            ("video", "best", {"codec": "vp9", "container": "webm", "fps": 60, "end_s": 9.0},
             "720p60.vp9.webm.clip-0-9000"),
            ("audio", None, {"start_s": 1.0, "end_s": 9.0}, "m4a.clip-1000-9000"),
            ("audio", "mp3", {}, "mp3"),
            ("audio", "m4a", {"tags": True}, "m4a.tags"),
        ],
    )  # fmt: skip
    def test_a_clip_or_a_sound_in_another_form_needs_no_source(self, kind, wish, options, variant):
        assert self.job_for(MediaKind(kind), wish, **options) == variant
        assert not Asset.objects.get(variant=variant).is_best

    @pytest.mark.parametrize(
        ("kind", "wish", "options"),
        [
            ("video", "360", {"start_s": 1.0, "end_s": 9.0}),
            ("video", "480", {"codec": "av1", "start_s": 1.0, "end_s": 9.0}),
            ("audio", "opus", {"start_s": 1.0, "end_s": 9.0}),
            ("audio", "flac", {}),
        ],
    )
    def test_what_nothing_stored_gives_is_as_gone_as_the_video(self, kind, wish, options):
        with pytest.raises(VideoUnavailable):
            self.job_for(MediaKind(kind), wish, **options)

    def test_a_clip_behind_the_measured_end_is_refused(self):
        with pytest.raises(InvalidParameter):
            self.job_for(MediaKind.VIDEO, "480", start_s=300.0)


@pytest.mark.usefixtures("imported")
class TestWithoutMetadata:
    @pytest.mark.parametrize("wish", [None, "best", "1080", "1080p", "2160"])
    def test_the_best_picture_answers_for_itself_and_for_every_height_above(self, asked, wish):
        assert given(MediaKind.VIDEO, wish) == "1080p"

    def test_what_is_stored_is_given_also_when_too_many_questions_wait(self, monkeypatch):
        monkeypatch.setattr(flights, "MAX_WAITING", 0)
        assert given(MediaKind.VIDEO, "best") == "1080p"

    @pytest.mark.parametrize("wish", [None, "m4a"])
    def test_the_best_sound_too(self, asked, wish):
        assert given(MediaKind.AUDIO, wish) == "m4a"

    def test_what_was_asked_for_by_name_needs_nobody(self, asked):
        assert given(MediaKind.VIDEO, "480") == "480p"
        assert given(MediaKind.VIDEO, "720p", fps=60, codec="vp9", container="webm") == "720p60.vp9.webm"
        clip = {"bitrate_kbps": 320, "start_s": 1.0, "end_s": 5.0}
        assert given(MediaKind.AUDIO, "mp3", **clip) == "mp3-320.clip-1000-5000"
        assert asked == []

    def test_a_height_in_between_is_asked_for_and_without_sources_the_next_lower_one_is_given(self, asked, monkeypatch):
        with pytest.raises(Suspend):
            given(MediaKind.VIDEO, "720")
        assert asked == [VIDEO_ID]

        def fail(_video_id: str) -> None:
            raise UpstreamUnreachable

        monkeypatch.setattr(media, "get_info", fail)
        assert given(MediaKind.VIDEO, "720") == "480p"
        assert given(MediaKind.VIDEO, "2160") == "1080p"
        with pytest.raises(UpstreamUnreachable):
            given(MediaKind.VIDEO, "360")
        with pytest.raises(UpstreamUnreachable):
            given(MediaKind.AUDIO, "opus")
