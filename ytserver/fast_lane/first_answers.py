"""When a process has just started: one request of each route goes to Django, and the others wait for what it shows.

Else all that come before the first answer would go to Django, which takes fifty times as long over each, and the more
of them there are the later the first answer comes. Only requests with a good key take part: from others nothing is
learnt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

WAIT_S = 2.0  # for the first ones of a route, all in all


class Route(NamedTuple):
    """Requests that are answered with the same headers."""

    name: str
    scheme: str


class FirstAnswers:
    """Who goes first. Belongs to one event loop."""

    def __init__(self) -> None:
        self._first: dict[Route, asyncio.Future[None]] = {}

    async def take_turn(self, route: Route, is_known: Callable[[], bool]) -> bool:
        """Whether the caller goes first, and has to call ``done``. Else returns as soon as ``is_known``, or after
        WAIT_S, and from then on at once until the first one is done."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while not is_known():
            first = self._first.get(route)
            if first is None:
                self._first[route] = loop.create_future()
                return True
            if first.done():
                break
            await asyncio.wait([first], timeout=deadline - loop.time())
            if not first.done():
                first.set_result(None)  # it takes long: the others need not wait as well
        return False

    def done(self, route: Route) -> None:
        """The first one has been answered, well or not. Can be repeated."""
        first = self._first.pop(route, None)
        if first is not None and not first.done():
            first.set_result(None)
