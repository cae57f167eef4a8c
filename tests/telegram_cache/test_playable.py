"""Playable copies: what people can play, posted once, with a link to it."""

from __future__ import annotations

import pytest
from aiohttp import web

from apps.downloads.services.answers import telegram_copy
from apps.downloads.services.jobs import refetch_asset
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.services import playable, playable_records, pool, resolving, sweep_uploads, upload_asset
from apps.telegram_cache.services.channels import set_playable
from apps.telegram_cache.services.upload import UploadResult
from tests.standins.faults import answer_instead
from tests.standins.server import StandIn
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, put_anew
from tests.waiting import wait_until

fetch_thumbnail = playable.fetch_thumbnail


@pytest.fixture(autouse=True)
def playing(store, monkeypatch):
    monkeypatch.setattr(playable, "fetch_thumbnail", lambda _video_id: b"\xff\xd8jpeg")
    monkeypatch.setattr(playable, "RETRY_S", 0.0)
    set_playable(str(CHANNEL_ID), True)
    return store


def reload(asset_id: str) -> Asset:
    return Asset.objects(id=asset_id).get()


def copies(store) -> list:
    return [message for message in store.telegram.originals() if message.media != "document"]


def test_a_song_is_posted_with_what_is_known_of_it_and_linked(store, make_asset):
    made = make_asset(MIB)
    Asset.objects(id=made.asset_id).update_one(set__uploader="A singer", set__duration_s=212.4)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    (copy,) = copies(store)
    assert (copy.media, copy.file_name) == ("audio", f"{made.asset_id}.m4a")
    assert (copy.fields["title"], copy.fields["performer"], copy.fields["duration"]) == ("A song", "A singer", "212")
    assert bytes.fromhex(copy.fields["thumbnail"]) == b"\xff\xd8jpeg"
    assert store.telegram.file_of(copy.file_unique_id).read_bytes() == made.data
    link = f"https://t.me/c/1234567890/{copy.message_id}"
    assert reload(made.asset_id).message_link == link
    assert telegram_copy(reload(made.asset_id))["message_link"] == link


def test_a_video_streams_and_a_channel_with_a_name_gives_a_link_for_everybody(store, make_asset):
    store.channel.username = "mystore"
    from apps.telegram_cache.services.bots import check_all

    check_all()
    made = make_asset(MIB)
    Asset.objects(id=made.asset_id).update_one(set__kind="video", set__mime="video/mp4", set__container="mp4")
    upload_asset(made.asset_id)
    (copy,) = copies(store)
    assert (copy.media, copy.fields["supports_streaming"]) == ("video", "true")
    assert reload(made.asset_id).message_link == f"https://t.me/mystore/{copy.message_id}"


def test_without_the_choice_or_above_50_mb_there_is_none(store, make_asset, monkeypatch):
    set_playable(str(CHANNEL_ID), False)
    upload_asset(make_asset(MIB, seed=1).asset_id)
    set_playable(str(CHANNEL_ID), True)
    monkeypatch.setattr(playable, "MAX_BYTES", MIB - 1)
    upload_asset(make_asset(MIB, seed=2).asset_id)
    assert copies(store) == []


@pytest.mark.parametrize("name", ["store_then_cut", "cut_before_storing"])
def test_a_lost_answer_is_looked_into_before_anything_is_sent_again(store, make_asset, name):
    made = make_asset(MIB)
    store.telegram.faults.add("sendAudio", name=name)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    assert reload(made.asset_id).message_link is None
    sweep_uploads()
    (copy,) = copies(store)
    assert reload(made.asset_id).message_link == f"https://t.me/c/1234567890/{copy.message_id}"
    sweep_uploads()
    assert len(copies(store)) == 1
    late = [(1_000_000, None)] if name == "cut_before_storing" else []  # it may still arrive, and is looked for then
    assert [(orphan.index, orphan.message_id) for orphan in reload(made.asset_id).orphans] == late


def test_a_refusal_never_spoils_the_cache_and_tries_are_bounded(store, make_asset):
    made = make_asset(MIB)
    store.telegram.faults.add("sendAudio", status=413, times=100)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    for _ in range(10):
        sweep_uploads()
    assert store.telegram.counts["sendAudio"] == 5
    asset = reload(made.asset_id)
    assert (asset.state, asset.message_link, asset.is_in_telegram) == (AssetState.CACHED, None, True)


def test_busy_moments_are_no_tries(store, make_asset, monkeypatch):
    def post() -> bool:
        Asset.objects(id=made.asset_id).update(unset__playable_until=1)
        return playable.post_playable(made.asset_id)

    made = make_asset(MIB, state=AssetState.CACHED)
    busy = [pool.take_slot() for _ in range(4)]
    assert [post() for _ in range(6)] == [False] * 6
    for slot in busy:
        slot.__exit__()
    store.telegram.rate_limit("sendAudio", 0, times=6)
    for number in range(1, 7):
        wait_until(lambda number=number: post() or store.telegram.counts["sendAudio"] == number)
    assert reload(made.asset_id).playable_tries == 0
    assert reload(made.asset_id).playable_until is not None
    wait_until(post)
    assert (store.telegram.counts["sendAudio"], reload(made.asset_id).playable_tries) == (7, 1)


def test_the_copy_of_an_older_generation_goes_with_it(store, make_asset, monkeypatch):
    monkeypatch.setattr("apps.downloads.services.jobs.send_fetch", lambda _job_id: None)
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    refetch_asset(made.asset_id)
    asset = reload(made.asset_id)
    assert (asset.message_link, asset.playable, asset.orphans) == (None, None, [])
    set_playable(str(CHANNEL_ID), False)
    put_anew(made.asset_id, made.data)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    assert [orphan.index for orphan in reload(made.asset_id).orphans] == [0, 1_000_000]


def due(asset_id: str) -> None:
    Asset.objects(id=asset_id).update(unset__playable_until=1)


def test_a_rival_that_finds_the_copy_before_its_answer_came_leaves_one_that_the_link_leads_to(
    store, make_asset, monkeypatch
):
    real = BotApi.send_playable

    def answered_late(self, **fields):
        message = real(self, **fields)
        due(made.asset_id)  # the right to post it has run out
        assert playable.post_playable(made.asset_id)
        return message

    monkeypatch.setattr(BotApi, "send_playable", answered_late)
    made = make_asset(MIB)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    (copy,) = copies(store)
    asset = reload(made.asset_id)
    assert (asset.playable.state, asset.playable.message_id) == ("stored", copy.message_id)
    assert asset.message_link == f"https://t.me/c/1234567890/{copy.message_id}"


def test_one_that_is_on_record_by_now_is_not_posted_again(store, make_asset):
    made = make_asset(MIB)
    upload_asset(made.asset_id)
    seen_before = reload(made.asset_id)
    seen_before.playable.state = "sending"
    assert playable_records.begin_playable(seen_before, bot_id="1", channel_id="2", attempt_id="3") is None


class TestALongSearch:
    @pytest.fixture
    def unanswered(self, store, make_asset, monkeypatch):
        """Begun and not ended, with the posts of other people after it."""
        monkeypatch.setattr(resolving, "MAX_LOOKS", 10)
        monkeypatch.setattr(pool, "BURST_MESSAGES", 1000)
        set_playable(str(CHANNEL_ID), False)
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        set_playable(str(CHANNEL_ID), True)
        asset = playable_records.claim_playable(made.asset_id, max_bytes=10**8)
        playable_records.begin_playable(asset, bot_id="111111", channel_id=str(CHANNEL_ID), attempt_id="f" * 16)
        return made

    def test_goes_on_where_it_ended_and_comes_to_an_end(self, store, unanswered):
        for _ in range(35):
            store.telegram._post(store.channel, store.bot, "", "somebody else's", "").media = "text"
        seen = []
        for _ in range(3):
            due(unanswered.asset_id)
            assert not playable.post_playable(unanswered.asset_id)
            seen.append(reload(unanswered.asset_id).playable.after_message_id)
        assert seen == [11, 21, 31]
        assert reload(unanswered.asset_id).playable_tries == 1  # that which was broken off
        due(unanswered.asset_id)
        assert playable.post_playable(unanswered.asset_id)
        assert store.telegram.counts["sendAudio"] == 1

    def test_is_a_try_when_nothing_is_found_out(self, store, unanswered):
        store.telegram._post(store.channel, store.bot, "", "somebody else's", "").media = "text"
        rights = dict(store.channel.admins[store.bot.bot_id])
        store.telegram.demote(store.bot, store.channel)
        store.channel.admins[store.bot.bot_id] = rights  # it may post, and sees nothing
        due(unanswered.asset_id)
        assert not playable.post_playable(unanswered.asset_id)
        assert reload(unanswered.asset_id).playable_tries == 2

    def test_passes_over_other_playable_copies(self, store, unanswered, make_asset):
        other = make_asset(MIB, seed=2)
        upload_asset(other.asset_id)
        assert len(copies(store)) == 1
        due(unanswered.asset_id)
        assert playable.post_playable(unanswered.asset_id)
        assert store.telegram.counts["forwardMessage"] == 0


class Pictures(StandIn):
    """A picture server that answers what the next fault says."""

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/vi/{video_id}/{name}", self._on_picture)
        return app

    async def _on_picture(self, _request: web.Request) -> web.StreamResponse:
        self.counts["thumbnail"] += 1
        return await answer_instead(self.faults.take("thumbnail")) or web.Response(status=404)


class TestThumbnail:
    @pytest.fixture
    def pictures(self, monkeypatch):
        """The picture server, and the real way to it."""
        with Pictures() as server:
            monkeypatch.setattr(playable, "THUMBNAIL_URL", f"{server.url}/vi/{{video_id}}/mqdefault.jpg")
            monkeypatch.setattr(playable, "fetch_thumbnail", fetch_thumbnail)
            yield server

    def test_is_fetched_and_sent_along(self, store, make_asset, pictures):
        jpeg = b"\xff\xd8\xff" + bytes(1000)
        pictures.faults.add("thumbnail", status=200, body=jpeg, headers={"Content-Type": "image/jpeg"})
        upload_asset(make_asset(MIB).asset_id)
        (copy,) = copies(store)
        assert bytes.fromhex(copy.fields["thumbnail"]) == jpeg

    @pytest.mark.parametrize(
        "fault",
        [{"status": 404}, {"status": 200, "body": "<html>"},
         {"status": 200, "body": bytes(300_000), "headers": {"Content-Type": "image/jpeg"}}],
    )  # fmt: skip
    def test_without_a_fit_picture_the_copy_goes_without_one(self, store, make_asset, pictures, fault):
        pictures.faults.add("thumbnail", **fault)
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        (copy,) = copies(store)
        assert "thumbnail" not in copy.fields
        assert reload(made.asset_id).message_link

    def test_comes_from_public_addresses_only(self, store, pictures, settings):
        settings.ENV = settings.ENV.model_copy(update={"outbound_allow": ()})
        pictures.faults.add("thumbnail", status=200, body=b"\xff\xd8\xff", headers={"Content-Type": "image/jpeg"})
        assert fetch_thumbnail("video000001") == b""
        assert pictures.counts["thumbnail"] == 0
