"""Copies that readers make to get a file_id: none is left behind, or it is on the list."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from apps.telegram_cache.clients.bot_files import BotFiles
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.roster import roster
from tests.telegram_cache.conftest import open_sparse, target_of
from tests.telegram_cache.test_reader import until


@pytest.fixture
def unknown_here(cached):
    """Nobody has a file_id of the asset's parts: each is forwarded first."""
    Asset._get_collection().update_one({"_id": cached.asset_id}, {"$set": {"parts.$[].file_ids": {}}})
    return cached


class Held:
    """The forward is carried out, and its answer is held back."""

    def __init__(self) -> None:
        self.is_made = asyncio.Event()
        self.may_go_on = asyncio.Event()


@pytest.fixture
def held(monkeypatch):
    state, real = Held(), BotFiles.forward_message

    async def slow(*arguments, **named):
        copy = await real(*arguments, **named)
        state.is_made.set()
        await state.may_go_on.wait()
        return copy

    monkeypatch.setattr(BotFiles, "forward_message", slow)
    return state


def orphans(asset_id: str) -> list:
    listed = Asset.objects.get(id=asset_id).orphans
    return [(orphan.index, orphan.message_id, orphan.reason) for orphan in listed]


async def test_a_reader_who_leaves_while_one_is_made_leaves_none(unknown_here, store, filler, held):
    target = target_of(unknown_here.asset_id)
    with closing(open_sparse(target)) as hot_file:
        reading = asyncio.create_task(filler.fill(target, hot_file, 0))
        await held.is_made.wait()
        assert len(store.telegram.messages) == 5
        reading.cancel()
        await until(lambda: reading.done() and not filler._flights)
        held.may_go_on.set()
        await until(lambda: len(store.telegram.messages) == 4)
    assert orphans(unknown_here.asset_id) == []


async def test_an_end_of_the_process_waits_until_it_is_deleted(unknown_here, store, filler, held):
    target = target_of(unknown_here.asset_id)
    with closing(open_sparse(target)) as hot_file:
        reading = asyncio.create_task(filler.fill(target, hot_file, 0))
        await held.is_made.wait()
        ending = asyncio.create_task(filler.aclose())
        await until(lambda: not filler._flights)
        held.may_go_on.set()
        await ending
        await asyncio.wait([reading])
        assert reading.exception() is not None
    assert len(store.telegram.messages) == 4


async def test_one_that_may_have_been_made_is_counted(unknown_here, store, filler):
    store.telegram.faults.add("forwardMessage", status=502)
    target = target_of(unknown_here.asset_id)
    with closing(open_sparse(target)) as hot_file:
        await filler.fill(target, hot_file, 0)
    assert orphans(unknown_here.asset_id) == [(0, None, "copy, without an answer")]


async def test_a_429_when_it_is_deleted_is_obeyed_and_the_copy_listed(unknown_here, store, filler):
    store.telegram.rate_limit("deleteMessage", 30)
    target = target_of(unknown_here.asset_id)
    with closing(open_sparse(target)) as hot_file:
        await filler.fill(target, hot_file, 0)
    assert orphans(unknown_here.asset_id) == [(0, 5, "copy")]
    assert (await asyncio.to_thread(roster)).bot("111111").cooling_s() > 5
