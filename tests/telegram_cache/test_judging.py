"""A stored part is called bad only when everybody who could still have it was asked, and no read was merely unlucky."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from apps.core.errors import UpstreamError
from apps.telegram_cache import reader
from apps.telegram_cache.clients.errors import TokenRefused
from apps.telegram_cache.documents import Asset, AssetState, Part, PartState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services import pool
from apps.telegram_cache.services.bots import disable_bot
from apps.telegram_cache.services.care_records import mark_part_bad
from apps.telegram_cache.services.verifying import verify_asset
from tests.telegram_cache.conftest import CHANNEL_ID, SIZE, open_sparse, read_all, target_of


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(reader, "ROUND_PAUSE_S", 0.01)


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


def park(bot_id: str = "111111") -> None:
    """Telegram says once that the token is wrong, though it is not."""
    pool.note_error(TokenRefused("Unauthorized"), roster().bot(bot_id))


def delete_message(store, asset_id: str, index: int = 0) -> None:
    del store.telegram.messages[CHANNEL_ID, reload(asset_id).parts[index].message_id]


def states(asset_id: str) -> set[str]:
    return {part.state for part in reload(asset_id).parts}


async def fails_to_read(filler, asset_id: str) -> None:
    target = target_of(asset_id)
    with closing(open_sparse(target)) as hot_file, pytest.raises(UpstreamError):
        await filler.fill(target, hot_file, 0)


class TestABotThatSeesNoMessages:
    """A changed bot: it has no file_ids, and the one that has them is dead."""

    @pytest.fixture
    def second(self, cached, store):
        second = store.add_bot(222222)
        store.telegram.bots[store.bot.token].alive = False
        park()
        return second

    async def test_that_is_no_administrator_condemns_nothing(self, cached, store, filler, second):
        store.telegram.demote(second, store.channel)
        await fails_to_read(filler, cached.asset_id)
        assert states(cached.asset_id) == {PartState.STORED}
        store.telegram.make_admin(second, store.channel)
        assert reload(cached.asset_id).state == AssetState.CACHED

    async def test_in_a_channel_that_forbids_forwarding_condemns_nothing(self, cached, store, filler, second):
        store.channel.protected = True
        await fails_to_read(filler, cached.asset_id)
        assert not (await run_verify(cached.asset_id)).bad
        assert states(cached.asset_id) == {PartState.STORED}

    async def test_is_believed_when_it_is_an_administrator(self, cached, store, filler, second):
        delete_message(store, cached.asset_id)
        await fails_to_read(filler, cached.asset_id)
        assert reload(cached.asset_id).parts[0].state == PartState.BAD

    async def test_is_believed_although_another_bot_is_not_let_in(self, cached, store, filler, second):
        third = store.add_bot(333333)
        store.channel.kicked.add(third.bot_id)
        delete_message(store, cached.asset_id)
        await fails_to_read(filler, cached.asset_id)
        assert reload(cached.asset_id).parts[0].state == PartState.BAD

    async def test_a_verification_by_one_that_is_no_administrator_leaves_the_part(self, cached, store, second):
        store.telegram.demote(second, store.channel)
        result = await run_verify(cached.asset_id)
        assert (result.bad, len(result.unread)) == ((), 4)
        assert states(cached.asset_id) == {PartState.STORED}


async def run_verify(asset_id: str):
    return await asyncio.to_thread(verify_asset, reload(asset_id))


class TestParkedBots:
    async def test_a_parked_bot_whose_file_id_still_works_reads_the_part(self, cached, store, filler):
        store.add_bot(222222)
        park()
        for index in range(4):
            delete_message(store, cached.asset_id, index)
        assert await read_all(filler, target_of(cached.asset_id)) == cached.data
        assert states(cached.asset_id) == {PartState.STORED}
        assert (await run_verify(cached.asset_id)).is_well

    async def test_one_that_cannot_be_asked_leaves_it_open(self, cached, store, filler):
        store.add_bot(222222)
        park()
        delete_message(store, cached.asset_id)
        store.telegram.faults.add("getFile", status=502, times=100)
        await fails_to_read(filler, cached.asset_id)
        assert states(cached.asset_id) == {PartState.STORED}

    async def test_one_that_an_operator_disabled_does_not_count(self, cached, store, filler):
        store.add_bot(222222)
        disable_bot("111111")
        delete_message(store, cached.asset_id)
        asked = store.telegram.calls_of[111111]
        await fails_to_read(filler, cached.asset_id)
        assert store.telegram.calls_of[111111] == asked
        assert reload(cached.asset_id).parts[0].state == PartState.BAD


class TestWrongReads:
    async def test_two_wrong_reads_in_a_row_condemn_nothing(self, cached, store):
        store.telegram.faults.add("file", wrong_bytes=True, times=2)
        assert (await run_verify(cached.asset_id)).is_well
        assert store.telegram.counts["getFile"] == 4 + 2  # each time by a fresh link

    async def test_the_right_bytes_of_another_bot_count(self, cached, store):
        store.add_bot(222222)
        store.telegram.spoiled.add(111111)
        assert (await run_verify(cached.asset_id)).is_well

    async def test_what_stays_wrong_is_condemned_after_three_reads(self, cached, store):
        part = reload(cached.asset_id).parts[3]
        store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * part.size)
        assert (await run_verify(cached.asset_id)).bad == (3,)
        assert store.telegram.counts["getFile"] == 3 + 3


def test_a_verdict_on_an_older_message_does_not_condemn_the_one_that_was_sent_since(cached):
    old: Part = reload(cached.asset_id).parts[0]
    stored_anew = {"parts.0.message_id": 99, "parts.0.attempt_id": "another"}
    Asset._get_collection().update_one({"_id": cached.asset_id}, {"$set": stored_anew})
    assert not mark_part_bad(cached.asset_id, generation=1, part=old, reason="gone")
    Asset._get_collection().update_one({"_id": cached.asset_id}, {"$set": {"parts.0.message_id": old.message_id}})
    assert not mark_part_bad(cached.asset_id, generation=1, part=old, reason="gone")
    assert states(cached.asset_id) == {PartState.STORED}
    assert mark_part_bad(cached.asset_id, generation=1, part=reload(cached.asset_id).parts[0], reason="gone")


async def test_what_another_process_brought_before_the_lock_came_free_is_not_fetched_again(
    cached, store, filler, monkeypatch
):
    target = target_of(cached.asset_id)
    with closing(open_sparse(target)) as hot_file:
        real = type(hot_file).lock_blocks

        def lock_late(self, first, count):
            if not hot_file.has_block(0):
                for block in range(2):
                    data = cached.data[block << 20 : (block + 1) << 20]
                    hot_file.put_block(block, data, sha256=target.block_hashes[block])
            return real(self, first, count)

        monkeypatch.setattr(type(hot_file), "lock_blocks", lock_late)
        await filler.fill(target, hot_file, 0)
    assert store.telegram.counts["getFile"] == 0
    assert len(cached.data) == SIZE
