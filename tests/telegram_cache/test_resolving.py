"""A part that was sent without an answer is looked for until somebody can tell; only then anything is sent again."""

from __future__ import annotations

import pytest

from apps.telegram_cache.documents import Asset, AssetState, PartState, TelegramChannel
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import assets_with_orphans
from apps.telegram_cache.services import resolving, upload_asset, uploader
from apps.telegram_cache.services.channels import set_messages_per_min, set_scratch_chat
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, make_due, stored_bytes

KICKED = {"ok": False, "error_code": 403, "description": "Forbidden: bot was kicked from the channel chat"}


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(uploader, "SHORT_WAIT_S", 0.3)
    monkeypatch.setattr(uploader, "SETTLE_S", 0.0)


@pytest.fixture
def unknown(store, make_asset):
    """A part that is in the channel although no answer came; nobody could look yet."""
    upload_asset(make_asset(MIB, seed=2).asset_id)
    made = make_asset(MIB)
    store.telegram.faults.add("sendDocument", name="store_then_cut")
    store.telegram.faults.add("forwardMessage", status=502)
    assert upload_asset(made.asset_id) is UploadResult.LATER
    return made


def try_again(made) -> UploadResult:
    make_due(made.asset_id)
    return upload_asset(made.asset_id)


LOST_COPY = [(0, None, "copy, without an answer")]  # the forward of the fixture ``unknown``


def assert_found(store, made, *, orphans=LOST_COPY) -> None:
    assert reload(made.asset_id).state == AssetState.CACHED
    assert store.telegram.counts["stored"] == 2
    assert len(store.telegram.originals()) == 2
    assert stored_bytes(store.telegram, made.asset_id) == made.data
    listed = [(orphan.index, orphan.message_id, orphan.reason) for orphan in reload(made.asset_id).orphans]
    assert listed == orphans


def assert_still_open(store, made) -> None:
    assert reload(made.asset_id).parts[0].state == PartState.UNKNOWN
    assert store.telegram.counts["sendDocument"] == 2


class TestABotThatCannotSee:
    def test_that_is_refused_leaves_it_to_another(self, store, unknown):
        store.add_bot(222222)
        store.telegram.faults.add("forwardMessage", status=403, body=KICKED)
        assert try_again(unknown) is UploadResult.CACHED
        assert_found(store, unknown)

    def test_that_is_the_only_one_leaves_it_open(self, store, unknown):
        store.telegram.faults.add("forwardMessage", status=403, body=KICKED)
        assert try_again(unknown) is UploadResult.LATER
        assert_still_open(store, unknown)
        assert roster().bot("111111").barred == {str(CHANNEL_ID)}

    def test_that_is_no_administrator_does_not_say_that_it_is_not_there(self, store, unknown):
        store.telegram.demote(store.bot, store.channel)
        store.channel.admins[store.bot.bot_id] = {
            "can_post_messages": True,
            "can_delete_messages": True,
        }  # sees nothing
        for _ in range(uploader.TRIES_TO_FIND_OUT + 1):
            assert try_again(unknown) is UploadResult.LATER
        assert_still_open(store, unknown)
        store.add_bot(222222)
        assert try_again(unknown) is UploadResult.CACHED
        assert_found(store, unknown)


class TestManyMessages:
    def test_deleted_ones_in_between_only_take_longer(self, store, make_asset, monkeypatch):
        monkeypatch.setattr(resolving, "MAX_MISSES", 10)
        set_messages_per_min(str(CHANNEL_ID), 1800)
        upload_asset(make_asset(MIB, seed=2).asset_id)
        made = make_asset(MIB)
        real = uploader.Uploader._request

        def after_others(*arguments):
            store.channel.last_message_id += 25  # posted and deleted meanwhile
            return real(*arguments)

        monkeypatch.setattr(uploader.Uploader, "_request", after_others)
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert try_again(made) is UploadResult.LATER
        assert try_again(made) is UploadResult.CACHED  # each looks at ten
        assert_found(store, made, orphans=[])

    def test_a_channel_of_which_nothing_is_known_is_searched_from_its_newest_message_back(
        self, store, make_asset, monkeypatch
    ):
        store.channel.last_message_id = 5000  # of an import, or of other people
        made = make_asset(MIB)
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 1
        assert len(store.telegram.messages) == 1
        assert TelegramChannel.objects.get().last_message_id > 5000


def test_what_is_found_by_way_of_the_scratch_chat_lies_in_the_channel(store, unknown):
    store.telegram.make_admin(store.bot, store.telegram.add_channel(-1003))
    set_scratch_chat(str(CHANNEL_ID), "-1003")
    assert try_again(unknown) is UploadResult.CACHED
    assert_found(store, unknown)
    assert reload(unknown.asset_id).parts[0].channel_id == str(CHANNEL_ID)


class TestRateLimits:
    @pytest.fixture
    def sent(self, store, make_asset):
        """A part that is in the channel although no answer came."""
        upload_asset(make_asset(MIB, seed=2).asset_id)
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        return make_asset(MIB)

    @pytest.mark.parametrize("method", ["sendMessage", "deleteMessage", "forwardMessage"])
    def test_of_every_call_are_obeyed_by_every_process(self, store, sent, method):
        store.telegram.rate_limit(method, 30)
        assert upload_asset(sent.asset_id) is UploadResult.LATER
        assert roster().bot("111111").cooling_s() > 5
        asset = reload(sent.asset_id)
        assert (asset.upload_attempts, asset.upload_error, asset.parts[0].state) == (0, None, PartState.UNKNOWN)

    @pytest.mark.parametrize("method", ["sendMessage", "forwardMessage"])
    def test_are_no_failure_however_many_come(self, store, sent, method, monkeypatch):
        monkeypatch.setattr(uploader, "SHORT_WAIT_S", 5.0)
        store.telegram.rate_limit(method, 0, times=20)
        assert upload_asset(sent.asset_id) is UploadResult.LATER
        asset = reload(sent.asset_id)
        assert (asset.upload_attempts, asset.upload_error) == (0, None)
        assert "Too Many Requests" in asset.upload_waits_for

    def test_leave_the_looking_to_another_bot(self, store, sent):
        store.add_bot(222222)
        store.telegram.rate_limit("sendMessage", 30)
        assert upload_asset(sent.asset_id) is UploadResult.CACHED
        assert_found(store, sent, orphans=[])


def test_a_short_message_that_was_never_answered_for_is_counted(store, unknown):
    store.telegram.faults.add("sendMessage", status=502)
    assert try_again(unknown) is UploadResult.LATER
    reasons = [orphan.reason for orphan in reload(unknown.asset_id).orphans]
    assert reasons == ["copy, without an answer", "looking, without an answer"]
    assert assets_with_orphans() == []  # nothing tells it from others: nobody looks for it, again and again
