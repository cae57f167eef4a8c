from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from apps.core.adaptive_threads import GROW_EVERY_S, AdaptiveThreads
from tests.waiting import wait_until

MUCH_LATER_S = 0.05  # many times the interpreter's switch interval


@pytest.fixture
async def threads() -> AsyncIterator[AdaptiveThreads]:
    made = AdaptiveThreads(least=2, most=12, name="test")
    yield made
    made.close()


class Holding:
    """A function that waits until the test lets it go, and how many are inside."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.inside = 0
        self.left = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.inside += 1
        self.go_on.wait(60)
        self.left.release()
        return "done"


@pytest.fixture
def holding() -> Iterator[Holding]:
    made = Holding()
    yield made
    made.go_on.set()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


def hold_up_the_event_loop(holding: Holding, runs: int) -> None:
    """As threads that compute do: their results are ready, and the loop comes much later."""
    for _ in range(runs):
        holding.left.acquire(timeout=60)
    time.sleep(MUCH_LATER_S)


async def test_gives_what_the_function_gives_and_raises_what_it_raises(threads):
    assert await threads.run(int, "7") == 7
    with pytest.raises(ValueError, match="seven"):
        await threads.run(int, "seven")


async def test_more_run_at_once_while_they_only_wait(threads):
    together = threading.Barrier(12, timeout=60)  # each of them waits for all the others
    places = await asyncio.gather(*(threads.run(together.wait) for _ in range(12)))
    assert sorted(places) == list(range(12))


async def test_never_more_than_the_most(threads, holding):
    runs = [asyncio.create_task(threads.run(holding)) for _ in range(20)]
    await until(lambda: holding.inside == 12)
    await asyncio.sleep(10 * GROW_EVERY_S)  # ten moments in which it would have grown
    assert (holding.inside, threads.size) == (12, 12)
    holding.go_on.set()
    assert await asyncio.gather(*runs) == ["done"] * 20


async def test_does_not_grow_while_the_process_computes(threads, holding, monkeypatch):
    monkeypatch.setattr("apps.core.adaptive_threads.BUSY_SHARE", -1)  # whatever it uses is too much
    runs = [asyncio.create_task(threads.run(holding)) for _ in range(5)]
    await until(lambda: holding.inside == 2)
    await asyncio.sleep(10 * GROW_EVERY_S)
    assert (holding.inside, threads.size) == (2, 2)
    monkeypatch.undo()
    await until(lambda: holding.inside == 5)
    holding.go_on.set()
    assert await asyncio.gather(*runs) == ["done"] * 5


async def test_shrinks_to_the_least_when_the_event_loop_comes_late(threads, holding):
    runs = [asyncio.create_task(threads.run(holding)) for _ in range(12)]
    await until(lambda: holding.inside == 12)
    holding.go_on.set()
    hold_up_the_event_loop(holding, len(runs))
    await asyncio.gather(*runs)
    assert threads.size == 2


async def test_what_is_run_again_and_what_is_new_take_turns(holding):
    one = AdaptiveThreads(least=1, most=1, name="test")
    order: list[str] = []
    first = asyncio.create_task(one.run(holding))
    await until(lambda: holding.inside == 1)
    new = [asyncio.create_task(one.run(order.append, f"new {number}")) for number in range(4)]
    again = [asyncio.create_task(one.run(order.append, f"again {number}", again=True)) for number in range(2)]
    await asyncio.sleep(0)  # each of them stands in line
    holding.go_on.set()
    await asyncio.gather(first, *new, *again)
    one.close()
    assert order[:4] in (["new 0", "again 0", "new 1", "again 1"], ["again 0", "new 0", "again 1", "new 1"])
    assert order[4:] == ["new 2", "new 3"]


async def test_who_stops_waiting_takes_no_thread_from_the_others(threads, holding):
    held = [asyncio.create_task(threads.run(holding)) for _ in range(15)]
    await until(lambda: holding.inside == 12)
    for task in held[12:]:
        task.cancel()
    holding.go_on.set()
    assert await asyncio.gather(*held[:12]) == ["done"] * 12
    together = threading.Barrier(12, timeout=60)
    await asyncio.gather(*(threads.run(together.wait) for _ in range(12)))


async def test_a_place_given_to_somebody_who_leaves_in_the_same_moment_goes_on_to_the_next():
    one = AdaptiveThreads(least=1, most=1, name="test")
    holding = Holding()

    async def run_and_cancel_the_next() -> str:
        result = await one.run(holding)
        second.cancel()  # it has been given the place, and does not know yet
        return result

    first = asyncio.create_task(run_and_cancel_the_next())
    second, third = (asyncio.create_task(one.run(holding)) for _ in range(2))
    await until(lambda: holding.inside == 1)
    holding.go_on.set()
    assert await first == "done"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await third == "done"
    assert holding.inside == 2
    one.close()


async def test_what_queues_is_dropped_at_the_end(holding):
    one = AdaptiveThreads(least=1, most=1, name="test")
    running, queueing = (asyncio.create_task(one.run(holding)) for _ in range(2))
    await until(lambda: holding.inside == 1)
    one.close()
    with pytest.raises(asyncio.CancelledError):
        await queueing
    holding.go_on.set()
    assert await running == "done"
    assert holding.inside == 1


async def test_what_comes_after_the_end_is_dropped_too_whether_there_is_a_place_or_not(holding):
    one = AdaptiveThreads(least=1, most=2, name="test")
    running = asyncio.create_task(one.run(holding))
    await until(lambda: holding.inside == 1)
    one.close()
    late = asyncio.create_task(one.run(holding))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(late, 60)
    holding.go_on.set()
    assert await running == "done"
    with pytest.raises(asyncio.CancelledError):
        await one.run(holding)
    assert holding.inside == 1


async def test_a_place_given_in_the_moment_of_the_end_is_dropped(holding):
    one = AdaptiveThreads(least=1, most=1, name="test")

    async def run_and_close() -> str:
        result = await one.run(holding)
        one.close()  # the next one has been given the place, and does not know yet
        return result

    first = asyncio.create_task(run_and_close())
    second = asyncio.create_task(one.run(holding))
    await until(lambda: holding.inside == 1)
    holding.go_on.set()
    assert await first == "done"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert holding.inside == 1
