"""Care of what is stored: bad parts mended step by step, giving up clearly, alerts, samples, re-keying."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command

from apps.core.errors import InvalidParameter
from apps.dashboard.selectors.work import bots_at_work
from apps.dashboard.telegram_lists import bot_state
from apps.downloads.documents import MediaJob
from apps.downloads.services.jobs import is_lost
from apps.downloads.services.refetching import refetch_lost
from apps.downloads.telegram_serializers import BotSerializer
from apps.streaming.hotstore import HotStore, blockmap
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.clients.errors import BotForbidden, TokenRefused
from apps.telegram_cache.documents import Asset, AssetState, PartState, TelegramBot
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import find_bot
from apps.telegram_cache.services import pool, sweep_uploads, upload_asset
from apps.telegram_cache.services.bots import check_all, disable_bot, enable_bot, replace_token
from apps.telegram_cache.services.care_records import mark_part_bad
from apps.telegram_cache.services.channels import add_channel, make_channel_default, set_scratch_chat
from apps.telegram_cache.services.upload import UploadResult
from apps.telegram_cache.services.verifying import verify_sample
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, make_due, read_all, stored_bytes, target_of


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def reload(asset_id: str) -> Asset:
    return Asset.objects(id=asset_id).get()


def spoil(store, asset_id: str, index: int) -> None:
    part = reload(asset_id).parts[index]
    store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * part.size)


class TestMending:
    def test_a_sample_finds_a_bad_part_and_it_is_rebuilt_from_the_hot_file(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        upload_asset(made.asset_id)
        spoil(store, made.asset_id, 1)
        assert [result.bad for result in verify_sample()] == [(1,)]
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert stored_bytes(store.telegram, made.asset_id) == made.data
        assert store.telegram.counts["stored"] == 3
        assert [result.is_well for result in verify_sample()] == [True]

    def test_what_cannot_be_read_now_neither_comes_first_each_night_nor_uses_up_the_bound(
        self, store, make_asset, settings, part_bytes
    ):
        store.telegram.local = True
        settings.ENV = settings.ENV.model_copy(update={"telegram_local_root": store.telegram.folder})
        part_bytes(2000 * MIB)
        large = make_asset(21 * MIB, seed=1).asset_id
        assert upload_asset(large) is UploadResult.CACHED
        store.telegram.local = False
        settings.ENV = settings.ENV.model_copy(update={"telegram_local_root": None})
        part_bytes(19 * MIB)
        small = make_asset(MIB, seed=2).asset_id
        assert upload_asset(small) is UploadResult.CACHED
        nights = [[(result.asset_id, result.read_bytes) for result in verify_sample(max_assets=1)] for _ in range(3)]
        assert sorted(nights[:2]) == sorted([[(large, 0)], [(small, MIB)]])
        assert nights[2] == nights[0]
        assert reload(large).verified_at is None
        Asset._get_collection().update_one({"_id": large}, {"$unset": {"verify_tried_at": ""}})
        assert [result.asset_id for result in verify_sample(max_bytes=21 * MIB)] == [large, small]

    def test_the_sample_takes_first_what_was_not_verified_for_longest_within_its_bounds(self, store, make_asset):
        made = [make_asset(MIB, seed=seed).asset_id for seed in (1, 2, 3)]
        for asset_id in made:
            upload_asset(asset_id)
        first = [result.asset_id for result in verify_sample(max_bytes=2 * MIB)]
        second = [result.asset_id for result in verify_sample(max_assets=1)]
        assert len(first) == 2
        assert sorted(first + second) == sorted(made)

    def test_without_the_hot_file_it_is_fetched_anew_as_a_new_generation(
        self, store, make_asset, part_bytes, hot_root, monkeypatch
    ):
        sent = []
        monkeypatch.setattr("apps.downloads.services.jobs.send_fetch", sent.append)
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        upload_asset(made.asset_id)
        HotStore(hot_root).remove(made.asset_id, 1)
        spoil(store, made.asset_id, 0)
        verify_sample()
        assert refetch_lost() == 0  # the upload looks for the bytes first
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert refetch_lost() == 1
        asset = reload(made.asset_id)
        assert (asset.generation, asset.state, asset.refetch_reason) == (2, AssetState.QUEUED, None)
        assert [job.asset_id for job in MediaJob.objects(id__in=sent)] == [made.asset_id]
        assert ([part.state for part in asset.previous.parts], asset.orphans) == (["bad", "stored"], [])
        assert refetch_lost() == 0

    def test_a_hot_file_that_is_not_what_the_record_says_goes_and_the_asset_is_fetched_anew(
        self, store, make_asset, hot_root, monkeypatch
    ):
        monkeypatch.setattr("apps.downloads.services.jobs.send_fetch", lambda _job_id: None)
        made = make_asset(2 * MIB)
        with next(hot_root.glob(f"*/{made.asset_id}.1")).open("r+b") as file:
            file.write(b"wrong")
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert HotStore(hot_root).open(made.asset_id, 1) is None
        assert refetch_lost() == 1
        assert reload(made.asset_id).generation == 2

    async def test_what_came_back_whole_is_not_called_lost_after_a_reboot(
        self, store, make_asset, filler, hot_root, monkeypatch
    ):
        made = await asyncio.to_thread(make_asset, 2 * MIB)
        await asyncio.to_thread(upload_asset, made.asset_id)
        HotStore(hot_root).remove(made.asset_id, 1)
        await read_all(filler, await asyncio.to_thread(target_of, made.asset_id))
        asset = await asyncio.to_thread(reload, made.asset_id)
        await asyncio.to_thread(mark_part_bad, made.asset_id, generation=1, part=asset.parts[0], reason="x")
        asset = await asyncio.to_thread(reload, made.asset_id)
        monkeypatch.setattr(blockmap, "boot_id", lambda: (1, 2))
        assert not HotStore(hot_root).is_complete(made.asset_id, 1)
        assert not await asyncio.to_thread(is_lost, asset)
        assert HotStore(hot_root).is_complete(made.asset_id, 1)
        (data,) = [path for path in hot_root.glob(f"*/{made.asset_id}.1") if path.is_file()]
        data.write_bytes(bytes(2 * MIB))
        next(hot_root.glob(f"*/{made.asset_id}.1.map")).unlink()
        assert await asyncio.to_thread(is_lost, asset)


class TestGivingUp:
    def give_up(self, store, asset_id: str) -> None:
        store.telegram.faults.add("sendDocument", status=413, times=2)
        assert upload_asset(asset_id) is UploadResult.LATER
        long_ago = datetime.now(UTC) - timedelta(hours=25)
        assert reload(asset_id).upload_failing_since is not None
        fields = {"upload_failing_since": long_ago, "upload_attempts": 20}
        Asset._get_collection().update_one({"_id": asset_id}, {"$set": fields})
        make_due(asset_id)
        assert upload_asset(asset_id) is UploadResult.LATER

    def test_after_a_day_without_one_part_it_stops_with_an_alert(self, store, make_asset, hot_root):
        made = make_asset()
        self.give_up(store, made.asset_id)
        asset = reload(made.asset_id)
        assert asset.upload_gave_up_at is not None
        assert asset.state in (AssetState.READY, AssetState.UPLOADING)
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.NOT_OURS
        assert sweep_uploads() == 0
        (alert,) = alerts()
        assert (alert.kind, alert.id) == ("asset", made.asset_id)
        assert "TELEGRAM_PART_BYTES" in alert.text
        assert "given up" in run("telegram", "list")
        assert HotStore(hot_root).is_complete(made.asset_id, 1)

    def test_repair_starts_it_again_and_the_alert_goes(self, store, make_asset):
        made = make_asset()
        self.give_up(store, made.asset_id)
        assert "cached" in run("cache", "repair")
        assert alerts() == []


class TestAlerts:
    def test_a_refused_token_shows_until_the_bot_is_well(self, store):
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("111111"))
        assert [(alert.kind, alert.id) for alert in alerts()] == [("bot", "111111")]
        check_all()
        assert alerts() == []

    def test_a_channel_where_no_bot_may_post_is_parked_and_shows_until_one_may(self, store):
        second = store.add_bot(222222)
        pool.note_error(BotForbidden("kicked"), roster().bot("111111"), channel_id=str(CHANNEL_ID))
        assert [(alert.kind, alert.id) for alert in alerts()] == [("bot", "111111")]
        pool.note_error(BotForbidden("kicked"), roster().bot("222222"), channel_id=str(CHANNEL_ID))
        assert [(alert.kind, alert.id) for alert in alerts()] == [("channel", str(CHANNEL_ID))]
        assert not roster().can_upload
        assert second.alive
        check_all()
        assert alerts() == []
        assert roster().can_upload

    def test_one_of_several_bots_that_may_not_post_shows_in_the_list(self, store):
        store.add_bot(222222)
        pool.note_error(BotForbidden("kicked"), roster().bot("222222"), channel_id=str(CHANNEL_ID))
        (alert,) = alerts()
        assert (alert.kind, alert.id, "kicked" in alert.text) == ("bot", "222222", True)
        shown = run("telegram", "list")
        assert f"stores nothing in {CHANNEL_ID}: kicked" in shown
        assert "ALERT" in shown
        assert roster().can_upload

    def test_a_channel_whose_last_able_bot_was_stopped_shows(self, store):
        store.add_bot(222222)
        pool.note_error(BotForbidden("kicked"), roster().bot("222222"), channel_id=str(CHANNEL_ID))
        disable_bot("111111")
        assert [(alert.kind, alert.id) for alert in alerts()] == [("channel", str(CHANNEL_ID))]
        enable_bot("111111")
        assert [alert.kind for alert in alerts()] == ["bot"]

    def test_a_bot_whose_rest_is_over_is_shown_as_active(self, store):
        pool.cool_down("111111", 3600)
        (bot,) = json.loads(run("telegram", "list", "--json"))["bots"]
        assert (bot["state"], bot["reason"]) == ("cooling", "Telegram asked it to wait")
        past = datetime.now(UTC) - timedelta(seconds=1)
        TelegramBot._get_collection().update_one({"_id": "111111"}, {"$set": {"until": past}})
        (bot,) = json.loads(run("telegram", "list", "--json"))["bots"]
        assert (bot["state"], bot["reason"], bot["until"]) == ("active", "", None)
        assert bot_state(find_bot("111111")).value == "in use"
        assert BotSerializer(find_bot("111111")).data["state"] == "active"
        assert bots_at_work()[0].state_now == "active"

    def test_what_the_operator_switched_off_is_no_alert(self, store):
        disable_bot("111111")
        assert alerts() == []


class TestChanging:
    def test_a_token_is_replaced_for_the_bot_it_belongs_to(self, store, monkeypatch):
        fresh = store.telegram.reissue_token(store.bot)
        other = store.telegram.add_bot(333333)
        with pytest.raises(InvalidParameter, match="another bot"):
            replace_token("111111", other.token)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{fresh.token}\n"))
        assert fresh.token not in run("telegram", "replace-token", "111111", "--token-stdin")
        assert roster().bot("111111").token == fresh.token

    def test_a_disabled_bot_and_channel_are_used_again(self, store):
        disable_bot("111111")
        assert enable_bot("111111").state == "active"
        run("telegram", "disable-channel", str(CHANNEL_ID))
        assert not roster().can_upload
        with pytest.raises(InvalidParameter, match="not in use"):
            make_channel_default(str(CHANNEL_ID))
        run("telegram", "enable-channel", str(CHANNEL_ID))
        assert roster().can_upload

    def test_another_channel_takes_what_is_new_and_the_old_one_stays_readable(self, store, make_asset):
        store.telegram.make_admin(store.bot, store.telegram.add_channel(-1002))
        old = make_asset(MIB, seed=1)
        upload_asset(old.asset_id)
        add_channel("-1002", make_default=False)
        run("telegram", "set-default", "-1002")
        new = make_asset(MIB, seed=2)
        upload_asset(new.asset_id)
        assert reload(new.asset_id).parts[0].channel_id == "-1002"
        assert all(result.is_well for result in verify_sample())

    def test_a_scratch_chat_must_take_messages_from_every_bot(self, store):
        scratch = store.telegram.add_channel(-1003)
        with pytest.raises(InvalidParameter, match="administrator"):
            set_scratch_chat(str(CHANNEL_ID), "-1003")
        store.telegram.make_admin(store.bot, scratch)
        run("telegram", "set-scratch-chat", str(CHANNEL_ID), "-1003")
        assert roster().channel(str(CHANNEL_ID)).scratch_chat_id == "-1003"
        run("telegram", "set-scratch-chat", str(CHANNEL_ID), "none")
        assert roster().channel(str(CHANNEL_ID)).scratch_chat_id == ""


class TestRekey:
    def test_every_bot_gets_its_own_file_ids_by_way_of_the_scratch_chat(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(3 * MIB)
        upload_asset(made.asset_id)
        second = store.add_bot(222222)
        scratch = store.telegram.add_channel(-1003)
        for bot in (store.bot, second):
            store.telegram.make_admin(bot, scratch)
        set_scratch_chat(str(CHANNEL_ID), "-1003")
        shown = run("telegram", "rekey")
        assert "3 of 3 (100 %)" in shown
        asset = reload(made.asset_id)
        assert all(set(part.file_ids) == {"111111", "222222"} for part in asset.parts)
        assert {message.chat_id for message in store.telegram.messages.values()} == {CHANNEL_ID}
        assert scratch.last_message_id == 3
        assert store.channel.last_message_id == 3
        assert "0 were missing" in run("telegram", "rekey")

    def test_what_cannot_be_done_is_named_and_the_rest_goes_on(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        upload_asset(made.asset_id)
        store.add_bot(222222)
        del store.telegram.messages[CHANNEL_ID, reload(made.asset_id).parts[0].message_id]
        with pytest.raises(CommandError, match="1 of 2"):
            run("telegram", "rekey", "222222")
        asset = reload(made.asset_id)
        assert ["222222" in part.file_ids for part in asset.parts] == [False, True]
        assert {part.state for part in asset.parts} == {PartState.STORED}

    def test_alerts_are_in_the_list_for_programs(self, store):
        assert json.loads(run("telegram", "list", "--json"))["alerts"] == []
