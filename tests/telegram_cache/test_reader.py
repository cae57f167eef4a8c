"""Reading back from Telegram: few calls, no wrong byte, and nothing left running when nobody wants it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from random import Random

import pytest
from django.conf import settings as django_settings

from apps.core.errors import NotReady, Overloaded, UpstreamError, UpstreamUnreachable
from apps.streaming.hotstore import HotFile, HotStore
from apps.streaming.hotstore.blockmap import HEADER_BYTES
from apps.telegram_cache import flights, reader
from apps.telegram_cache.clients.errors import TelegramUncertain
from apps.telegram_cache.documents import Asset, AssetState, PartState
from apps.telegram_cache.reader import TelegramFiller
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services import pool, upload_asset
from apps.telegram_cache.services.bots import add_bot, disable_bot
from apps.telegram_cache.services.channels import set_messages_per_min, set_scratch_chat
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import MIB, make_due, open_sparse, read_all, stored_bytes, target_of


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@dataclass
class Counted:
    calls: int = 0


def count_calls(monkeypatch, owner: type, name: str) -> Counted:
    """Counts calls of a method, which does its work as before."""
    counted, real = Counted(), getattr(owner, name)

    def wrapped(*arguments, **named):
        result = real(*arguments, **named)
        counted.calls += 1
        return result

    monkeypatch.setattr(owner, name, wrapped)
    return counted


FAULTY_SHARE = 0.35


class TestReading:
    async def test_the_whole_asset_comes_back_bit_identical_each_part_once(self, cached, store, filler):
        target = target_of(cached.asset_id)
        assert await read_all(filler, target) == cached.data
        assert store.telegram.counts["getFile"] == store.telegram.counts["file"] == 4

    async def test_one_block_brings_its_part_only(self, cached, store, filler):
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 3)
            assert bytes(hot_file.view(3 * MIB, 4 * MIB)) == cached.data[3 * MIB : 4 * MIB]
            await until(lambda: hot_file.has_block(2))
        assert store.telegram.counts["file"] == 1

    async def test_many_readers_share_one_download(self, cached, store, filler):
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await asyncio.gather(*(filler.fill(target, hot_file, 1) for _ in range(200)))
        assert store.telegram.counts["getFile"] == store.telegram.counts["file"] == 1

    async def test_the_first_block_is_there_before_the_part_is_complete(self, cached, store, filler):
        store.telegram.faults.add("file", stall_after_bytes=MIB + 1000)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await asyncio.wait_for(filler.fill(target, hot_file, 0), 60)
            assert not hot_file.has_block(1)

    async def test_it_reads_ahead_once_a_client_reads_on(self, cached, store, filler):
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 0)
            await until(lambda: hot_file.has_block(1))
            assert store.telegram.counts["file"] == 1  # one block could be all it wants
            await filler.fill(target, hot_file, 2)  # it came from the part before
            await until(lambda: hot_file.has_block(4))
        assert store.telegram.counts["file"] == 3

    async def test_a_link_is_used_again_and_renewed_once_when_it_has_expired(self, cached, store, filler):
        target = target_of(cached.asset_id)
        assert await read_all(filler, target) == cached.data
        HotStore(django_settings.ENV.hot_root).remove(cached.asset_id, 1)
        assert await read_all(filler, target) == cached.data
        assert store.telegram.counts["getFile"] == 4
        store.telegram.expire_links()
        HotStore(django_settings.ENV.hot_root).remove(cached.asset_id, 1)
        assert await read_all(filler, target) == cached.data
        assert store.telegram.counts["getFile"] == 8


class TestTwoProcesses:
    async def test_a_part_is_downloaded_once(self, cached, store, filler, monkeypatch):
        target = target_of(cached.asset_id)
        store.telegram.faults.add("file", delay_s=0.5)
        with closing(open_sparse(target)) as hot_file:
            lock = await asyncio.to_thread(hold_blocks, cached.asset_id)
            tried = count_calls(monkeypatch, HotFile, "lock_blocks")
            waiting = asyncio.create_task(filler.fill(target, hot_file, 1))
            await until(lambda: tried.calls > 1)
            assert store.telegram.counts["getFile"] == 0  # another process has it
            hot_file.put_block(1, cached.data[MIB : 2 * MIB], sha256=target.block_hashes[1])
            await asyncio.wait_for(waiting, 60)
            taking_over = asyncio.create_task(filler.fill(target, hot_file, 0))
            lock.kill()  # and dies: the kernel frees the lock
            await asyncio.to_thread(lock.communicate)
            await asyncio.wait_for(taking_over, 60)
        assert store.telegram.counts["getFile"] == 1


HOLDER = """
import sys
from apps.streaming.hotstore.locks import try_lock
lock = try_lock(sys.argv[1], int(sys.argv[2]), 2)
print("held" if lock else "taken", flush=True)
sys.stdin.read()
"""


def hold_blocks(asset_id: str) -> subprocess.Popen[str]:
    """A process that holds the lock of the first two blocks until it dies."""
    (block_map,) = django_settings.ENV.hot_root.glob(f"*/{asset_id}.1.map")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(block_map), str(HEADER_BYTES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


class TestWhenItGoesWrong:
    async def test_wrong_bytes_from_one_bot_come_from_the_other(self, cached, store, filler):
        store.telegram.spoiled.add(111111)
        store.add_bot(222222)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data

    async def test_bytes_spoilt_once_on_the_way_are_asked_for_again(self, cached, store, filler):
        store.telegram.faults.add("file", wrong_bytes=True)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert Asset.objects(id=cached.asset_id).get().state == AssetState.CACHED

    async def test_many_faults_in_a_row_are_survived(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)
        store.telegram.faults.add("getFile", status=502)
        store.telegram.faults.add("getFile", status=413, body="<html>Request Entity Too Large</html>", skip=1)
        for fault in ({"wrong_bytes": True}, {"cut_after_bytes": 1000}, {"wrong_bytes": True}, {"status": 404}):
            store.telegram.faults.add("file", **fault)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert Asset.objects(id=cached.asset_id).get().state == AssetState.CACHED

    @pytest.mark.parametrize("bots", [1, 4])
    async def test_with_a_third_of_all_requests_failing_the_bytes_are_the_same(
        self, cached, store, filler, monkeypatch, bots
    ):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.001)
        monkeypatch.setattr(reader, "LONGEST_PAUSE_S", 0.005)
        for number in range(1, bots):
            store.add_bot(222222 + number)
        random = Random(bots)
        failing = [{"status": 502}, {"status": 404}, {"status": 200, "body": "<html>"}, {"delay_s": 0.01}]
        cutting = [{"cut_after_bytes": 700_000}, {"wrong_bytes": True}, {"size_change_bytes": -5}]
        for route, faults in (("getFile", failing[:1] + failing[2:]), ("file", failing[:2] + cutting)):
            passed = 0
            for _ in range(100):
                if random.random() < FAULTY_SHARE:
                    store.telegram.faults.add(route, skip=passed, **random.choice(faults))
                    passed = 0
                else:
                    passed += 1
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert len(store.telegram.faults.taken) > 2

    async def test_the_bot_that_failed_least_is_asked_first(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)
        asked: list[str] = []
        real = TelegramFiller._download_from

        async def note(self, bot, flight):
            asked.append(bot.bot_id)
            if len(asked) <= 3:
                raise TelegramUncertain("no answer")
            await real(self, bot, flight)

        store.add_bot(222222)
        monkeypatch.setattr(TelegramFiller, "_download_from", note)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 0)
        assert asked == ["111111", "222222", "111111", "222222"]  # the one with a file_id, else who failed less often

    async def test_without_any_connection_it_ends_soon(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)
        store.telegram.stop()
        tried = count_calls(monkeypatch, TelegramFiller, "_download_from")
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamUnreachable):
            await filler.fill(target, hot_file, 0)
        assert tried.calls == reader.ROUNDS_WITHOUT_CONNECTION

    async def test_a_file_id_that_stays_unavailable_is_replaced_by_forwarding(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)
        unavailable = "Bad Request: wrong file_id or the file is temporarily unavailable"
        body = {"ok": False, "error_code": 400, "description": unavailable}
        store.telegram.faults.add("getFile", status=400, body=body, times=3)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 0)
        assert store.telegram.counts["forwardMessage"] == 1

    async def test_wrong_bytes_everywhere_end_clearly_and_the_part_is_sent_again(self, cached, store, filler):
        store.telegram.spoiled.add(111111)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            with pytest.raises(UpstreamError, match="damaged"):
                await filler.fill(target, hot_file, 0)
            assert not hot_file.has_block(0)
        asset = Asset.objects(id=cached.asset_id).get()
        assert [part.state for part in asset.parts] == [PartState.BAD, *[PartState.STORED] * 3]
        assert asset.state == AssetState.READY

    @pytest.mark.parametrize(
        "fault", [{"cut_after_bytes": 1_500_000}, {"size_change_bytes": -700_000}, {"status": 502}, {"status": 404}]
    )
    async def test_a_passing_fault_is_survived(self, cached, store, filler, fault):
        store.telegram.faults.add("file", **fault)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data

    async def test_429_on_getfile_is_obeyed_with_the_other_bot(self, cached, store, filler):
        store.add_bot(222222)
        store.telegram.rate_limit("getFile", 600)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data

    async def test_when_every_bot_must_rest_for_long_it_says_how_long(self, cached, store, filler):
        store.telegram.rate_limit("getFile", 600)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(Overloaded) as caught:
            await filler.fill(target, hot_file, 0)
        assert caught.value.retry_after_s > 300
        assert store.telegram.counts["getFile"] == 1

    async def test_telegram_away_is_a_clear_error(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)
        store.telegram.faults.add("getFile", status=502, times=100)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamUnreachable):
            await filler.fill(target, hot_file, 0)
        assert store.telegram.counts["getFile"] == reader.ROUNDS

    async def test_an_asset_that_is_not_in_telegram_is_a_clear_error(self, store, make_asset, filler):
        made = make_asset(MIB)
        HotStore(django_settings.ENV.hot_root).remove(made.asset_id, 1)
        target = target_of(made.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamError):
            await filler.fill(target, hot_file, 0)

    async def test_after_closing_nothing_starts(self, cached, store, filler):
        await filler.aclose()
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(NotReady):
            await filler.fill(target, hot_file, 0)


class TestChangingTheBot:
    async def test_a_new_bot_reads_what_the_old_one_stored(self, cached, store, filler):
        store.telegram.bots[store.bot.token].alive = False
        second = store.telegram.add_bot(222222)
        store.telegram.make_admin(second, store.channel)
        add_bot(second.token)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        asset = Asset.objects(id=cached.asset_id).get()
        assert all("222222" in part.file_ids for part in asset.parts)
        assert len(store.telegram.messages) == 4  # the copies are gone
        assert store.telegram.counts["forwardMessage"] == 4
        HotStore(django_settings.ENV.hot_root).remove(cached.asset_id, 1)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert store.telegram.counts["forwardMessage"] == 4

    async def test_copies_take_turns_with_the_bots_other_messages(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(reader, "ROUNDS", 1)
        store.add_bot(222222)
        disable_bot("111111")
        set_messages_per_min(str(store.channel.chat_id), 1)
        for _ in range(pool.BURST_MESSAGES):
            assert pool.take_token("222222", str(store.channel.chat_id)) == 0
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamError):
            await filler.fill(target, hot_file, 0)
        assert store.telegram.counts["forwardMessage"] == 0

    async def test_a_broken_scratch_chat_is_no_fault_of_the_channel(self, cached, store, filler):
        second = store.add_bot(222222)
        scratch = store.telegram.add_channel(-1003)
        for bot in (store.bot, second):
            store.telegram.make_admin(bot, scratch)
        set_scratch_chat(str(store.channel.chat_id), "-1003")
        scratch.kicked.add(222222)
        disable_bot("111111")
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert roster().bot("222222").barred == {"-1003"}
        assert len(store.telegram.messages) == 4  # the copies are gone

    async def test_a_reissued_token_needs_no_forwarding(self, cached, store, filler):
        add_bot(store.telegram.reissue_token(store.bot).token)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert store.telegram.counts["forwardMessage"] == 0

    async def test_a_copy_that_cannot_be_deleted_is_listed(self, cached, store, filler):
        store.telegram.bots[store.bot.token].alive = False
        second = store.telegram.add_bot(222222)
        store.telegram.make_admin(second, store.channel, delete=False)
        add_bot(second.token)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert {orphan.reason for orphan in Asset.objects(id=cached.asset_id).get().orphans} == {"copy"}

    async def test_a_message_that_was_deleted_makes_the_part_bad_and_it_is_stored_again(self, cached, store, filler):
        store.telegram.bots[store.bot.token].alive = False
        second = store.telegram.add_bot(222222)
        store.telegram.make_admin(second, store.channel)
        add_bot(second.token)
        first = Asset.objects(id=cached.asset_id).get().parts[0].message_id  # parts are sent in any order
        del store.telegram.messages[store.channel.chat_id, first]
        target = target_of(cached.asset_id)
        await asyncio.to_thread(upload_asset, cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            with pytest.raises(UpstreamError):
                await filler.fill(target, hot_file, 0)
            for block in range(2):
                data = cached.data[block * MIB : (block + 1) * MIB]
                hot_file.put_block(block, data, sha256=target.block_hashes[block])
        make_due(cached.asset_id)
        assert upload_asset(cached.asset_id) is UploadResult.CACHED
        assert stored_bytes(store.telegram, cached.asset_id) == cached.data


class TestLeaving:
    async def test_the_last_waiter_that_leaves_ends_the_download(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(flights, "GRACE_S", 0.05)
        store.telegram.faults.add("file", stall_after_bytes=1000)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            readers = [asyncio.create_task(filler.fill(target, hot_file, 0)) for _ in range(3)]
            await until(lambda: store.telegram.counts["file"] == 1)
            looked = count_calls(monkeypatch, flights.Flight, "_end_if_unwanted")
            next(iter(filler._flights.values()))._look_again(0.05)
            for task in readers[:2]:
                task.cancel()
            await until(lambda: looked.calls > 0)
            assert filler._flights
            readers[2].cancel()
            await until(lambda: not filler._flights)

    async def test_a_reader_that_comes_back_at_once_goes_on_with_the_same_download(self, cached, store, filler):
        store.telegram.faults.add("file", delay_s=0.3)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            leaving = asyncio.create_task(filler.fill(target, hot_file, 0))
            await until(lambda: store.telegram.counts["file"] == 1)
            leaving.cancel()
            await filler.fill(target, hot_file, 0)
        assert store.telegram.counts["file"] == 1

    async def test_a_download_nobody_asks_for_any_more_ends(self, cached, store, filler, monkeypatch):
        monkeypatch.setattr(flights, "LINGER_S", 0.05)
        store.telegram.faults.add("file", stall_after_bytes=MIB + 1000)
        target = target_of(cached.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 0)
            await until(lambda: not filler._flights)


class TestLocalServer:
    @pytest.fixture
    def local(self, store, settings):
        store.telegram.local = True
        settings.ENV = settings.ENV.model_copy(update={"telegram_local_root": store.telegram.folder})

    async def test_files_are_read_from_the_disk_where_they_are_wanted(self, store, local, make_asset, part_bytes):
        part_bytes(2000 * MIB)
        made = make_asset(40 * MIB)
        assert upload_asset(made.asset_id) is UploadResult.CACHED
        HotStore(django_settings.ENV.hot_root).remove(made.asset_id, 1)
        filler = TelegramFiller()
        target = target_of(made.asset_id)
        with closing(open_sparse(target)) as hot_file:
            await filler.fill(target, hot_file, 33)
            assert not hot_file.has_block(0)
            for block in range(40):
                await filler.fill(target, hot_file, block)
            assert bytes(hot_file.view(0, len(made.data))) == made.data
        await filler.aclose()
        assert store.telegram.counts["file"] == 0

    async def test_a_path_outside_the_root_is_refused(self, store, local, tmp_path_factory):
        from apps.telegram_cache.clients.bot_files import BotFiles
        from apps.telegram_cache.clients.errors import TelegramRefused

        outside = tmp_path_factory.mktemp("outside") / "secret"
        outside.write_text("secret")
        (store.telegram.folder / "link").symlink_to(outside)
        for path in (str(outside), f"../{outside.parent.name}/secret", "link", "/etc/passwd", "\0"):
            with pytest.raises(TelegramRefused):
                BotFiles().locate(path)
