"""One look for all who ask the same thing at the same time, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from apps.core.suspend import Suspend

Result = TypeVar("Result")


class _Outcome(NamedTuple, Generic[Result]):
    result: Result | None
    error: Exception | None
    trace: TracebackType | None = None  # of the error as it was raised: each raising of it in a caller adds to it


class SharedLooks(Generic[Result]):
    """Belongs to one event loop. While one look at something is under way, whoever asks waits for the next one, which
    begins after they asked: nobody is told what was so before."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[_Outcome[Result]]] = {}
        self._next: dict[Hashable, asyncio.Task[_Outcome[Result]]] = {}

    async def look(self, question: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        """What ``work`` gives or raises, of this caller or of one who asked the same. So the question has to name
        everything that the outcome depends on, failures too: each caller's own look would be a thousand that wait
        for a MongoDB that is away. A failure is not remembered.

        A look goes on when who began it has gone.
        """
        task = self._next.get(question)
        if task is None:
            task = self._next[question] = asyncio.create_task(self._look_in_turn(question, work), name="shared-look")
        outcome = await asyncio.shield(task)
        if isinstance(outcome.error, Suspend):
            raise Suspend(outcome.error.topic)
        if outcome.error is not None:
            raise outcome.error.with_traceback(outcome.trace)
        result: Result = outcome.result  # type: ignore[assignment]
        return result

    async def _look_in_turn(self, question: Hashable, work: Callable[[], Awaitable[Result]]) -> _Outcome[Result]:
        if (running := self._running.get(question)) is not None:
            await asyncio.wait([running])
        self._running[question] = self._next.pop(question)
        try:
            return _Outcome(await work(), None)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
            return _Outcome(None, error, error.__traceback__)
        finally:
            del self._running[question]
