"""The same work for several items at once, ended in order when one of them fails."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def in_parallel(work: Callable[[Item], None], items: Iterable[Item], *, threads: int) -> None:
    """Do ``work`` for each item, in order of beginning, in at most ``threads`` threads (this one among them).

    After the first failure nothing new begins, what runs is finished, and the failure is raised.
    """
    waiting = deque(items)
    failures: list[BaseException] = []

    def take_turns() -> None:
        while not failures:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                failures.append(error)

    others = [threading.Thread(target=take_turns, name="part") for _ in range(min(threads, len(waiting)) - 1)]
    for thread in others:
        thread.start()
    take_turns()
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]
