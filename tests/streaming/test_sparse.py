"""Very many streams at once that need the same file made ready."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from apps.core.errors import Overloaded
from apps.streaming.hotstore import BLOCK_BYTES, FileState, HotStore, HotStoreFull, WriterBusy
from apps.streaming.ports import StreamTarget
from apps.streaming.sparse import SparseFiles
from tests.streaming.media import make_bytes
from tests.streaming.serving import TableBackend

SIZE = 2 * BLOCK_BYTES
MANY = 200


class Slow(HotStore):
    """Takes as long as the test wants to make a file ready; then ``error``, if there is one."""

    def __init__(self, store: HotStore) -> None:
        super().__init__(store.root)
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.calls = 0
        self.error: Exception | None = None

    def open_sparse(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(60)
        if self.error is not None:
            raise self.error
        return super().open_sparse(*arguments, **options)


@pytest.fixture
def slow(store: HotStore) -> Iterator[Slow]:
    made = Slow(store)
    yield made
    made.may_end.set()


@pytest.fixture
def target() -> StreamTarget:
    return TableBackend().add(make_bytes(SIZE, seed=1))


async def begin(slow: Slow, target: StreamTarget) -> tuple[SparseFiles, list[asyncio.Task[Any]]]:
    files = SparseFiles(slow)
    waiting = [asyncio.create_task(files.open(target)) for _ in range(MANY)]
    assert await asyncio.to_thread(slow.begun.wait, 60)
    return files, waiting


async def test_one_thread_makes_it_ready_for_all_of_them(slow, target):
    _, waiting = await begin(slow, target)
    assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 60) == 7  # others still find a thread
    slow.may_end.set()
    opened = await asyncio.gather(*waiting)
    assert slow.calls == 1
    assert {each.state for each in opened} == {FileState.SPARSE}
    assert len({id(each) for each in opened}) == MANY
    for each in opened:
        each.close()


@pytest.mark.parametrize("error", [HotStoreFull("full", missing_bytes=1), WriterBusy("busy")])
async def test_a_failure_is_everybodys_and_is_not_remembered(slow, target, error):
    slow.error = error
    files, waiting = await begin(slow, target)
    slow.may_end.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Overloaded] * MANY
    assert slow.calls == 1
    slow.error = None
    opened = await files.open(target)
    assert opened is not None
    opened.close()


async def test_who_began_it_may_leave(slow, target):
    _, waiting = await begin(slow, target)
    waiting[0].cancel()
    slow.may_end.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    for opened in outcomes[1:]:
        assert opened.state is FileState.SPARSE
        opened.close()
    assert slow.calls == 1
