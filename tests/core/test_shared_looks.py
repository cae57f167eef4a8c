from __future__ import annotations

import asyncio
import traceback

import pytest

from apps.core.shared_looks import SharedLooks
from apps.core.suspend import Suspend


class Look:
    """One that can be held; counts how often it began."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        return number

    async def at_once(self) -> int:
        self.may_end.set()
        return await self()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_at_the_same_time_shares_a_look_and_who_asks_later_gets_one_that_began_later():
    looks: SharedLooks[int] = SharedLooks()
    look = Look()
    first = [asyncio.create_task(looks.look("a", look)) for _ in range(5)]
    await settle()
    later = [asyncio.create_task(looks.look("a", look)) for _ in range(5)]
    await settle()
    assert look.begun == 1
    look.may_end.set()
    assert await asyncio.gather(*first) == [1] * 5
    assert await asyncio.gather(*later) == [2] * 5


async def test_different_questions_do_not_wait_for_each_other():
    looks: SharedLooks[int] = SharedLooks()
    held, free = Look(), Look()
    free.may_end.set()
    waiting = asyncio.create_task(looks.look("a", held))
    assert await looks.look("b", free) == 1
    held.may_end.set()
    assert await waiting == 1


async def test_that_there_is_nothing_yet_is_shared():
    looks: SharedLooks[int] = SharedLooks()
    begun = []

    async def nothing_yet() -> int:
        begun.append(1)
        raise Suspend("topic")

    outcomes = await asyncio.gather(*(looks.look("a", nothing_yet) for _ in range(5)), return_exceptions=True)
    assert [outcome.topic for outcome in outcomes if isinstance(outcome, Suspend)] == ["topic"] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5
    assert len(begun) == 1


async def test_a_failure_is_everybodys_and_is_not_remembered():
    looks: SharedLooks[int] = SharedLooks()
    begun = []

    async def fail() -> int:
        begun.append(1)
        raise ValueError

    outcomes = await asyncio.gather(*(looks.look("a", fail) for _ in range(1000)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ValueError}
    assert len(begun) == 1
    assert len(list(traceback.walk_tb(outcomes[-1].__traceback__))) < 10, "what is logged is one way to it, not all"
    assert await looks.look("a", Look().at_once) == 1


async def test_who_asks_while_a_look_fails_gets_one_that_begins_later():
    looks: SharedLooks[int] = SharedLooks()
    may_fail = asyncio.Event()

    async def fail() -> int:
        await may_fail.wait()
        raise ValueError

    first = asyncio.create_task(looks.look("a", fail))
    await settle()
    later = [asyncio.create_task(looks.look("a", Look().at_once)) for _ in range(5)]
    await settle()
    may_fail.set()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], ValueError)
    assert await asyncio.gather(*later) == [1] * 5


async def test_whoever_leaves_takes_nothing_from_those_who_stay():
    looks: SharedLooks[int] = SharedLooks()
    look = Look()
    gone, *others = (asyncio.create_task(looks.look("a", look)) for _ in range(5))
    await settle()
    later = [asyncio.create_task(looks.look("a", look)) for _ in range(2)]
    await settle()
    for task in (gone, later[0]):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    look.may_end.set()
    assert await asyncio.gather(*others) == [1] * 4
    assert await later[1] == 2


async def test_a_look_goes_on_when_who_began_it_has_gone():
    looks: SharedLooks[int] = SharedLooks()
    look = Look()
    gone, stays = (asyncio.create_task(looks.look("a", look)) for _ in range(2))
    await settle()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    look.may_end.set()
    assert await stays == 1
    assert look.begun == 1


async def test_nothing_is_kept_of_what_is_over():
    looks: SharedLooks[int] = SharedLooks()
    look = Look()
    look.may_end.set()
    await asyncio.gather(*(looks.look(number % 3, look) for number in range(9)))
    await settle()
    assert not looks._running
    assert not looks._next
