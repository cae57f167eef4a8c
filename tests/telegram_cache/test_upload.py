"""Uploads: parts, limits, lost answers, crashes and rivals; whatever happens, one recorded copy of each part."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st

from apps.core.owners import make_owner
from apps.core.queues import NotSent, list_name
from apps.core.redis import redis_client
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import Asset, AssetKey, AssetState, MediaKind, PartState
from apps.telegram_cache.roster import Roster, roster
from apps.telegram_cache.selectors import waiting_uploads
from apps.telegram_cache.services import (
    care_records,
    pool,
    request_upload,
    sweep_uploads,
    upload_asset,
    upload_records,
    uploader,
)
from apps.telegram_cache.services.bots import check_all
from apps.telegram_cache.services.care_records import mark_part_bad
from apps.telegram_cache.services.channels import add_channel, set_scratch_chat
from apps.telegram_cache.services.hot_bytes import HotBytes
from apps.telegram_cache.services.planning import Stretch, plan_around, plan_parts
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, Store, make_due, read_all, stored_bytes, target_of


def reload(asset_id: str) -> Asset:
    return Asset.objects(id=asset_id).get()


def assert_whole(store: Store, made) -> None:
    """Cached, bit-identical, one message per part and no other."""
    asset = reload(made.asset_id)
    assert asset.state == AssetState.CACHED
    assert asset.is_in_telegram
    assert stored_bytes(store.telegram, made.asset_id) == made.data
    assert len({part.message_id for part in asset.parts}) == len(asset.parts)


class TestPlan:
    @given(
        size=st.integers(1, 60 * MIB),
        part_bytes=st.integers(MIB, 20 * MIB),
        new_bytes=st.integers(MIB, 20 * MIB),
        choose=st.randoms(use_true_random=False),
    )
    def test_what_stays_is_not_cut_and_the_rest_is_covered_once(self, size, part_bytes, new_bytes, choose):
        before = plan_parts(size, part_bytes)
        kept = [stretch for stretch in before if choose.random() < 0.5]
        after = plan_around(kept, size, new_bytes)
        assert set(kept) <= set(after)
        at = 0
        for offset, length in after:
            assert offset == at
            at += length
            assert (offset, length) in kept or (length <= new_bytes and (length % MIB == 0 or at == size))
        assert at == size

    @given(size=st.integers(0, 3000 * MIB), part_bytes=st.integers(MIB, 2000 * MIB))
    def test_parts_cover_every_byte_once_in_whole_blocks_within_the_limit(self, size, part_bytes):
        at = 0
        for offset, length in plan_parts(size, part_bytes):
            assert offset == at
            assert offset % MIB == 0
            assert 0 < length <= part_bytes
            at += length
        assert at == size

    def test_neighbours_differ_in_size(self):
        sizes = [part.size // MIB for part in plan_parts(100 * MIB, 19 * MIB)]
        assert sizes == [19, 18, 17, 19, 18, 9]


class TestUpload:
    def test_a_ready_asset_becomes_cached_bit_identical(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(3 * MIB + 777)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert_whole(store, made)
        asset = reload(made.asset_id)
        assert [part.size for part in asset.parts] == [MIB, MIB, MIB, 777]
        assert {tuple(part.file_ids) for part in asset.parts} == {("111111",)}
        assert {part.channel_id for part in asset.parts} == {str(CHANNEL_ID)}
        for message in store.telegram.originals():
            part = next(part for part in asset.parts if part.message_id == message.message_id)
            assert message.caption == f"yt1|{asset.id}|{part.index}|{part.attempt_id}|{part.sha256[:16]}"
            assert message.file_name == f"{asset.id}.{part.index}.bin"

    def test_a_second_call_sends_nothing(self, store, make_asset):
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert upload_asset(made.asset_id) is UploadResult.NOT_OURS
        assert store.telegram.counts["sendDocument"] == 1

    def test_without_a_bot_nothing_happens(self, mongo, redis_server, telegram, make_asset):
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.OFF
        request_upload(made.asset_id)
        assert sweep_uploads() == 0

    def test_a_task_that_came_before_the_worker_knew_the_channel_is_sent_again(self, store, make_asset, monkeypatch):
        made = make_asset()
        request_upload(made.asset_id)
        monkeypatch.setattr("apps.telegram_cache.services.upload.roster", Roster)
        assert upload_asset(made.asset_id) is UploadResult.OFF
        assert sweep_uploads() == 1
        assert reload(made.asset_id).state == AssetState.READY

    def test_an_unknown_asset_and_one_that_is_being_fetched_are_left_alone(self, store, make_asset):
        assert upload_asset("0" * 24) is UploadResult.NOT_OURS
        made = make_asset(state=AssetState.FETCHING)
        assert upload_asset(made.asset_id) is UploadResult.NOT_OURS

    def test_twenty_workers_at_once_send_each_part_once(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(4 * MIB)
        results: list[UploadResult] = []
        threads = [threading.Thread(target=lambda: results.append(upload_asset(made.asset_id))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(UploadResult.CACHED) == 1
        assert store.telegram.counts["stored"] == 4
        assert_whole(store, made)

    def test_several_parts_are_sent_at_once_by_all_bots_at_most_four_by_each(self, store, make_asset, part_bytes):
        store.add_bot(222222)
        part_bytes(MIB)
        made = make_asset(12 * MIB)
        store.telegram.hold_uploads(8)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.most_uploads_at_once == 8
        assert set(store.telegram.most_uploads_of.values()) == {4}
        assert_whole(store, made)

    def test_when_other_files_keep_every_bot_busy_the_sweep_goes_on_with_it(self, store, make_asset, monkeypatch):
        monkeypatch.setattr(uploader, "SHORT_WAIT_S", 0.3)
        made = make_asset()
        busy = [pool.take_slot() for _ in range(4)]
        assert upload_asset(made.asset_id) is UploadResult.LATER
        asset = reload(made.asset_id)
        assert asset.upload_attempts == 0
        assert "every bot is sending other files" in asset.upload_waits_for  # and nothing has failed
        assert (asset.upload_error, asset.upload_failing_since) == (None, None)
        assert waiting_uploads() == (1, asset.upload_retry_at)
        for slot in busy:
            with slot:
                pass
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert waiting_uploads() == (0, None)

    def test_a_failure_lets_the_parts_under_way_finish(self, store, make_asset, part_bytes, monkeypatch):
        failed, real = threading.Event(), uploader.Uploader._store

        def store_part(*arguments):
            try:
                real(*arguments)
            except uploader.TryLater:
                failed.set()
                raise
            assert failed.wait(30)  # however slow this machine is: none is through before the failure

        monkeypatch.setattr(uploader.Uploader, "_store", store_part)
        part_bytes(MIB)
        made = make_asset(6 * MIB)
        store.telegram.hold_uploads(3)
        store.telegram.faults.add("sendDocument", status=413, body="<html>")
        assert upload_asset(made.asset_id) is UploadResult.LATER
        asset = reload(made.asset_id)
        assert [part.state for part in asset.parts].count(PartState.STORED) == store.telegram.counts["stored"] == 3
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 6
        assert_whole(store, made)

    def test_memory_stays_flat_whatever_the_size(self, store):
        made = big_asset(256 * MIB)
        script = (
            "import django, resource, sys; django.setup()\n"
            "from apps.telegram_cache.services import upload_asset\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "result = upload_asset(sys.argv[1])\n"
            "print(result.value, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        result = "later"
        while result == "later":  # on a busy machine every bot's places may be taken for long
            make_due(made.asset_id)
            done = subprocess.run(
                [sys.executable, "-c", script, made.asset_id], env=environment(store), capture_output=True, text=True,
                timeout=240, check=True,
            )  # fmt: skip
            result, grown_kib = done.stdout.split()
            assert int(grown_kib) < 64 * 1024
        assert result == "cached", done.stderr
        assert sum(store.telegram.sizes.values()) == 256 * MIB


class TestWhenTelegramSaysNo:
    def test_429_is_obeyed_and_is_no_failure(self, store, make_asset):
        store.telegram.rate_limit("sendDocument", 30)
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.LATER
        asset = reload(made.asset_id)
        assert (asset.upload_attempts, asset.upload_error, asset.upload_failing_since) == (0, None, None)
        assert 25 < (asset.upload_retry_at - asset.updated_at).total_seconds() <= 31
        assert roster().bot("111111").cooling_s() > 5
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert store.telegram.counts["sendDocument"] == 1  # not asked again while it must rest

    def test_a_short_429_is_waited_for(self, store, make_asset):
        store.telegram.rate_limit("sendDocument", 1)
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["sendDocument"] == 2  # one that came too early would have been refused again
        assert_whole(store, made)

    def test_any_number_of_429s_on_one_part_is_no_failure(self, store, make_asset):
        store.telegram.rate_limit("sendDocument", 0, times=6)
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["sendDocument"] == 7
        assert reload(made.asset_id).upload_attempts == 0

    def test_the_other_bot_goes_on(self, store, make_asset):
        store.add_bot(222222)
        store.telegram.rate_limit("sendDocument", 600)
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert_whole(store, made)

    def test_a_bot_that_was_removed_is_barred_and_the_other_does_it(self, store, make_asset):
        second = store.add_bot(222222)
        store.channel.kicked.add(second.bot_id)
        made = [make_asset(seed=seed) for seed in range(1, 4)]
        for item in made:
            assert upload_asset(item.asset_id) is UploadResult.CACHED
        assert roster().bot("222222").barred == {str(CHANNEL_ID)}

    def test_413_says_which_setting_to_lower(self, store, make_asset):
        store.telegram.faults.add("sendDocument", status=413)
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert "TELEGRAM_PART_BYTES" in reload(made.asset_id).upload_error
        assert store.telegram.originals() == []

    def test_a_wrong_size_in_the_answer_is_not_recorded_and_the_message_goes(self, store, make_asset):
        store.telegram.faults.add("sendDocument", name="wrong_size")
        made = make_asset()
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert store.telegram.originals() == []
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert_whole(store, made)

    def test_the_delay_grows_and_success_resets_it(self, store, make_asset, settings):
        url = settings.ENV.telegram_api_url
        settings.ENV = settings.ENV.model_copy(update={"telegram_api_url": "http://127.0.0.1:1"})
        made = make_asset()
        delays = []
        for _ in range(4):
            make_due(made.asset_id)
            assert upload_asset(made.asset_id) is UploadResult.LATER
            asset = reload(made.asset_id)
            delays.append((asset.upload_retry_at - asset.updated_at).total_seconds())
        assert [round(delay) for delay in delays] == [5, 10, 20, 40]
        settings.ENV = settings.ENV.model_copy(update={"telegram_api_url": url})
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        asset = reload(made.asset_id)
        assert (asset.upload_attempts, asset.upload_error, asset.upload_retry_at) == (0, None, None)


class TestUnknownOutcome:
    @pytest.mark.parametrize(
        "fault",
        [
            {"name": "store_then_cut"},
            {"name": "store_then_status", "status": 502},
            {"name": "store_then_status", "status": 200, "body": "<html>ok</html>"},
        ],
    )
    def test_a_stored_part_without_an_answer_is_found_and_not_sent_again(self, store, make_asset, part_bytes, fault):
        part_bytes(MIB)
        made = make_asset(3 * MIB)
        store.telegram.faults.add("sendDocument", skip=1, **fault)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 3
        assert len(store.telegram.messages) == 3  # the copies made to look are gone
        assert_whole(store, made)
        assert reload(made.asset_id).orphans == []

    @pytest.mark.parametrize("fault", [{"name": "cut_before_storing"}, {"status": 500}])
    def test_a_part_that_never_arrived_is_sent_again(self, store, make_asset, part_bytes, fault):
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        store.telegram.faults.add("sendDocument", **fault)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 2
        assert_whole(store, made)

    def test_other_peoples_messages_in_between_do_not_confuse_it(self, store, make_asset):
        other = make_asset(seed=2)
        assert upload_asset(other.asset_id) is UploadResult.CACHED
        store.telegram._post(store.channel, store.bot, "AgADx", "hello", "x")
        store.telegram.sizes["AgADx"] = 5
        made = make_asset()
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 2
        assert_whole(store, made)

    def test_when_telegram_does_not_let_us_look_the_possible_orphan_is_listed(self, store, make_asset):
        made = make_asset()
        upload_asset(make_asset(MIB, seed=2).asset_id)
        store.channel.protected = True
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        for _ in range(uploader.TRIES_TO_FIND_OUT):
            make_due(made.asset_id)
            assert upload_asset(made.asset_id) is UploadResult.LATER
            assert reload(made.asset_id).parts[0].state == PartState.UNKNOWN
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        asset = reload(made.asset_id)
        assert [(orphan.index, orphan.message_id) for orphan in asset.orphans] == [(0, None)]
        assert_whole(store, made)

    def test_429_while_looking_is_obeyed_by_every_process(self, store, make_asset):
        made = make_asset()
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        store.telegram.rate_limit("forwardMessage", 30)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        asset = reload(made.asset_id)
        assert (asset.upload_attempts, asset.parts[0].state) == (0, PartState.UNKNOWN)
        assert roster().bot("111111").cooling_s() > 5

    def test_a_channel_that_bars_every_bot_ends_in_a_clear_state_that_names_it(self, store, make_asset, hot_root):
        made = make_asset()
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        store.telegram.faults.add("forwardMessage", status=502)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        store.telegram.make_admin(store.bot, store.telegram.add_channel(-1002))
        add_channel("-1002")  # what is new goes there
        store.channel.kicked.add(store.bot.bot_id)
        for number in range(1, 4):
            make_due(made.asset_id)
            assert upload_asset(made.asset_id) is UploadResult.LATER
            asset = reload(made.asset_id)
            assert (asset.upload_attempts, asset.upload_waits_for) == (number + 1, None)
        assert "no bot may post in the channel Store (-1001234567890)" in asset.upload_error
        assert store.telegram.counts["sendDocument"] == 1
        long_ago = {"upload_failing_since": datetime.now(UTC) - timedelta(hours=25), "upload_attempts": 20}
        Asset._get_collection().update_one({"_id": made.asset_id}, {"$set": long_ago})
        make_due(made.asset_id)
        upload_asset(made.asset_id)
        assert reload(made.asset_id).upload_gave_up_at is not None
        (channel, upload) = alerts()
        assert (channel.kind, channel.id) == ("channel", str(CHANNEL_ID))
        assert "given up" in upload.text
        assert "Store (-1001234567890)" in upload.text
        store.channel.kicked.clear()
        check_all()
        care_records.make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 1

    def test_a_broken_scratch_chat_is_no_fault_of_the_channel(self, store, make_asset):
        scratch = store.telegram.add_channel(-1003)
        store.telegram.make_admin(store.bot, scratch)
        set_scratch_chat(str(CHANNEL_ID), "-1003")
        scratch.kicked.add(store.bot.bot_id)
        made = make_asset()
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 1
        assert roster().bot("111111").barred == {"-1003"}
        assert roster().can_upload
        (alert,) = alerts()
        assert "-1003" in alert.text
        scratch.kicked.clear()
        check_all()
        assert alerts() == []

    def test_nothing_is_sent_while_it_cannot_be_found_out(self, store, make_asset):
        made = make_asset()
        store.telegram.faults.add("sendDocument", name="store_then_cut")
        store.telegram.faults.add("forwardMessage", status=502)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert store.telegram.counts["sendDocument"] == 1
        assert reload(made.asset_id).parts[0].state == PartState.UNKNOWN
        make_due(made.asset_id)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 1
        assert_whole(store, made)


@dataclass(frozen=True)
class Big:
    asset_id: str


def big_asset(size: int) -> Big:
    """A sparse file of zeros: large without filling the disk."""
    store = HotStore(django_settings.ENV.hot_root)
    key = AssetKey("bigbigbig00", MediaKind.VIDEO, "1080p")
    file = store.scratch_dir(key.asset_id, 1) / "big.mp4"
    with file.open("wb") as made:
        made.truncate(size)
    hashes = [hashlib.sha256(bytes(MIB)).digest()] * (size // MIB)
    store.adopt(key.asset_id, 1, file, block_hashes=hashes)
    Asset(
        id=key.asset_id, video_id=key.video_id, kind=key.kind, variant=key.variant, size_bytes=size,
        sha256="0" * 64, block_sha256=b"".join(hashes), state=AssetState.READY,
    ).save()  # fmt: skip
    return Big(key.asset_id)


def environment(store: Store) -> dict[str, str]:
    return {
        **os.environ, **store.telegram.environment(), "TELEGRAM_PART_BYTES":
        str(django_settings.ENV.telegram_part_bytes), "PYTHONWARNINGS": "default",
    }  # fmt: skip


CRASHES = {
    "after_claim": 3,
    "after_plan": 3,
    "after_attempt_is_written": 3,
    "while_sending": 3,
    "after_storing_before_commit": 3,
    "after_second_storing_before_commit": 3,
    "before_finish": 3,
    "after_finish": 3,
}


class TestCrashes:
    @pytest.mark.parametrize(("step", "stored"), CRASHES.items())
    def test_after_a_crash_the_next_run_finishes_and_no_part_is_stored_twice(
        self, store, make_asset, part_bytes, crash, step, stored
    ):
        part_bytes(MIB)
        made = make_asset(2 * MIB + 5)
        crash(made.asset_id, step)
        before = store.telegram.counts["stored"]
        if step != "after_finish":
            assert upload_asset(made.asset_id) is UploadResult.NOT_OURS  # its lease has not run out
            make_due(made.asset_id)
            assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == stored >= before
        assert_whole(store, made)

    def test_the_sweep_sees_a_dead_worker_of_this_machine_at_once(self, store, make_asset, part_bytes, crash):
        part_bytes(MIB)
        made = make_asset(2 * MIB + 5)
        crash(made.asset_id, "after_second_storing_before_commit")
        assert redis_client().zcard("yt:tg:slots:111111") > 0
        assert sweep_uploads() == 1
        assert redis_client().zcard("yt:tg:slots:111111") == 0
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        assert store.telegram.counts["stored"] == 3
        assert_whole(store, made)

    def test_the_sweep_leaves_a_living_worker_its_lease(self, store, make_asset):
        made = make_asset()
        owner = make_owner()
        assert upload_records.claim_upload(made.asset_id, owner=f"{owner}:1")
        assert sweep_uploads() == 0
        assert reload(made.asset_id).upload_owner == f"{owner}:1"

    def test_an_owner_that_lost_its_lease_while_sending_records_no_second_copy(self, store, make_asset):
        made = make_asset()
        real = upload_records.commit_part

        def commit_after_a_rival_took_over(asset, **fields):
            upload_records.commit_part = real
            make_due(made.asset_id)
            store.telegram.faults.add("forwardMessage", status=400, body={"ok": False, "description": "no"})
            Asset._get_collection().update_one({"_id": made.asset_id}, {"$set": {"upload_attempts": 9}})
            assert upload_asset(made.asset_id) is UploadResult.CACHED
            return real(asset, **fields)

        upload_records.commit_part = commit_after_a_rival_took_over
        try:
            assert upload_asset(made.asset_id) is UploadResult.LOST
        finally:
            upload_records.commit_part = real
        assert_whole(store, made)
        assert len(store.telegram.originals()) == 1  # the one that did not count was deleted

    def test_a_rival_that_finds_the_message_before_its_answer_came_keeps_the_only_copy(self, store, make_asset):
        made = make_asset()
        real = upload_records.commit_part

        def commit_after_a_rival_found_it(asset, **fields):
            upload_records.commit_part = real
            make_due(made.asset_id)
            assert upload_asset(made.asset_id) is UploadResult.CACHED
            return real(asset, **fields)

        upload_records.commit_part = commit_after_a_rival_found_it
        try:
            assert upload_asset(made.asset_id) is UploadResult.LOST
        finally:
            upload_records.commit_part = real
        assert_whole(store, made)
        assert store.telegram.counts["stored"] == len(store.telegram.originals()) == 1

    def test_a_message_of_the_wrong_size_goes_before_the_record_forgets_it(self, store, make_asset, monkeypatch):
        made = make_asset()
        states = []
        real = uploader.remove_message

        def remove(*arguments, **named):
            states.append(reload(made.asset_id).parts[0].state)
            real(*arguments, **named)

        monkeypatch.setattr(uploader, "remove_message", remove)
        store.telegram.faults.add("sendDocument", name="wrong_size")
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert states == [PartState.SENDING]
        assert reload(made.asset_id).parts[0].state == PartState.PLANNED
        assert store.telegram.originals() == []


class TestSmallerParts:
    """After Telegram refused one part as too large, and took others."""

    @pytest.fixture
    def refused(self, store, make_asset, part_bytes):
        part_bytes(2 * MIB)
        made = make_asset(6 * MIB)
        store.telegram.faults.add("sendDocument", status=413, skip=1)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        asset = reload(made.asset_id)
        assert {part.state for part in asset.parts} == {PartState.STORED, PartState.PLANNED}
        part_bytes(MIB)
        make_due(made.asset_id)
        return made

    def test_apply_at_once_to_what_is_not_stored_yet(self, store, refused):
        before = stored_of(refused)
        sent = store.telegram.counts["sendDocument"]
        assert upload_asset(refused.asset_id) is UploadResult.CACHED
        asset = reload(refused.asset_id)
        assert before.items() <= stored_of(refused).items()
        assert {part.size for part in asset.parts if part.offset not in before} == {MIB}
        assert [part.index for part in asset.parts] == list(range(len(asset.parts)))
        assert store.telegram.counts["sendDocument"] - sent == len(asset.parts) - len(before)
        assert list(asset.orphans) == []
        assert stored_bytes(store.telegram, refused.asset_id) == refused.data

    async def test_are_read_back_beside_the_larger_ones(self, store, refused, filler):
        await asyncio.to_thread(upload_asset, refused.asset_id)
        HotStore(django_settings.ENV.hot_root).remove(refused.asset_id, 1)
        assert await read_all(filler, target_of(refused.asset_id)) == refused.data

    def test_apply_to_stored_ones_that_this_server_does_not_give_back(self, store, refused, monkeypatch):
        before = {message for message, _ in stored_of(refused).values()}
        monkeypatch.setattr("apps.telegram_cache.reach.PUBLIC_FILE_MAX_BYTES", MIB)
        assert upload_asset(refused.asset_id) is UploadResult.CACHED
        asset = reload(refused.asset_id)
        assert [part.size for part in asset.parts] == [MIB] * 6
        assert {orphan.message_id for orphan in asset.orphans} == before
        assert stored_bytes(store.telegram, refused.asset_id) == refused.data

    def test_wait_while_a_part_without_an_answer_can_only_be_looked_for(self, store, refused, monkeypatch):
        stored = next(part for part in reload(refused.asset_id).parts if part.state == PartState.STORED)
        seen = {"_id": refused.asset_id, "parts.index": stored.index}
        Asset._get_collection().update_one(seen, {"$set": {"parts.$.state": PartState.UNKNOWN.value}})
        monkeypatch.setattr(HotBytes, "has", lambda _self, offset, _size: offset != stored.offset)
        upload_asset(refused.asset_id)
        assert reload(refused.asset_id).parts[stored.index].attempt_id == stored.attempt_id

    def test_are_not_planned_over_a_part_that_turned_bad_meanwhile(self, store, refused):
        asset = upload_records.claim_upload(refused.asset_id, owner="me")
        kept = [part for part in asset.parts if part.state == PartState.STORED]
        assert mark_part_bad(asset.id, generation=1, part=kept[0], reason="x")
        stretches = plan_around([Stretch(part.offset, part.size) for part in kept], asset.size_bytes, MIB)
        assert upload_records.save_plan(asset, owner="me", stretches=stretches, kept=kept) is None
        assert len(reload(asset.id).parts) == 3

    def test_do_not_apply_when_the_file_is_not_here_to_send_it_anew(self, store, refused):
        before = [part.message_id for part in reload(refused.asset_id).parts]
        HotStore(django_settings.ENV.hot_root).remove(refused.asset_id, 1)
        assert upload_asset(refused.asset_id) is UploadResult.LATER
        assert [part.message_id for part in reload(refused.asset_id).parts] == before


def stored_of(made) -> dict[int, tuple[int, int]]:
    """{offset: (message id, size)} of what is stored."""
    parts = [part for part in reload(made.asset_id).parts if part.state == PartState.STORED]
    return {part.offset: (part.message_id, part.size) for part in parts}


class TestHotBytes:
    def test_wrong_bytes_are_never_sent(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        wrong = bytearray(reload(made.asset_id).block_sha256)
        wrong[40] ^= 1
        Asset._get_collection().update_one({"_id": made.asset_id}, {"$set": {"block_sha256": bytes(wrong)}})
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert reload(made.asset_id).refetch_reason
        assert [message.caption.split("|")[2] for message in store.telegram.originals()] in ([], ["0"])

    def test_without_the_hot_file_it_says_so(self, store, make_asset):
        made = make_asset()
        HotStore(django_settings.ENV.hot_root).remove(made.asset_id, 1)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert "hot store" in reload(made.asset_id).upload_error


class TestSweep:
    def test_the_queue_stays_short_and_what_waits_in_it_is_not_sent_again(self, store):
        fields = {"kind": "audio", "variant": "m4a", "state": "ready", "size_bytes": 1, "attempt": 0, "generation": 1}
        many = [{"_id": f"{n:024x}", "video_id": f"v{n:010d}", "parts": [], **fields} for n in range(150)]
        Asset._get_collection().insert_many(many)
        assert [sweep_uploads() for _ in range(4)] == [50, 50, 0, 0]
        long_ago = {"$set": {"upload_queued_at": datetime.now(UTC) - timedelta(minutes=10)}}
        Asset._get_collection().update_many({"upload_queued_at": {"$ne": None}}, long_ago)
        names = list_name("upload", 0)
        for _ in range(30):
            redis_client().rpop(names)
        assert sweep_uploads() == 30
        assert Asset.objects(upload_queued_at__gte=datetime.now(UTC) - timedelta(minutes=5)).count() == 30
        asked = [json.loads(message)["headers"]["argsrepr"] for message in redis_client().lrange(names, 0, -1)]
        assert len(set(asked)) == len(asked) == 100

    def test_what_was_queued_is_sent_again_when_its_message_was_lost(self, store, make_asset):
        made = make_asset()
        assert sweep_uploads() == 1
        redis_client().delete(list_name("upload", 0))
        assert sweep_uploads() == 0
        long_ago = {"$set": {"upload_queued_at": datetime.now(UTC) - timedelta(minutes=3)}}
        Asset._get_collection().update_one({"_id": made.asset_id}, long_ago)
        assert sweep_uploads() == 1

    def test_what_is_due_is_queued_once(self, store, make_asset):
        made = [make_asset(seed=seed) for seed in range(1, 4)]
        request_upload(made[0].asset_id)
        assert sweep_uploads() == 2
        assert sweep_uploads() == 0

    @pytest.mark.parametrize("queue", [lambda asset_id: request_upload(asset_id), lambda _: sweep_uploads()])
    def test_what_could_not_be_sent_is_sent_by_the_next_sweep(self, store, make_asset, monkeypatch, queue):
        made = make_asset()

        def not_sent(*_: str) -> None:
            raise NotSent("ConnectionError")

        with monkeypatch.context() as broker_away:
            broker_away.setattr("apps.telegram_cache.services.queueing.send_task", not_sent)
            assert not queue(made.asset_id)
        assert sweep_uploads() == 1
        assert sweep_uploads() == 0

    def test_what_was_put_off_waits_for_its_time(self, store, make_asset):
        made = make_asset()
        store.telegram.faults.add("sendDocument", status=413)
        assert upload_asset(made.asset_id) is UploadResult.LATER
        assert sweep_uploads() == 0
        make_due(made.asset_id)
        assert sweep_uploads() == 1

    def test_what_a_worker_that_died_left_is_queued_as_soon_as_its_lease_has_run_out(self, store, make_asset):
        made = make_asset()
        request_upload(made.asset_id)
        assert upload_records.claim_upload(made.asset_id, owner="dies") is not None
        assert sweep_uploads() == 0
        make_due(made.asset_id)
        assert sweep_uploads() == 1
