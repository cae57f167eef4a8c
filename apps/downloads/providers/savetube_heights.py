"""Which heights SaveTube has of a video, when it does not say so: found by asking, as seldom as possible."""

from __future__ import annotations

from collections.abc import Callable

from apps.core.errors import QualityUnavailable, UpstreamError
from apps.downloads.providers.savetube_info import KNOWN_HEIGHTS

FIRST_TRIED = 1080
Ask = Callable[[int], str]
"""Gives the link of one height. Raises RefusedError or QualityUnavailable when there is none."""


class RefusedError(UpstreamError):
    """SaveTube said no to one quality, without saying why. Another quality may be had."""


class AskedHeights:
    """What asking has shown of one video. Each height is asked for once; a link that was found is used once."""

    def __init__(self) -> None:
        self._links: dict[int, str] = {}
        self._refused: set[int] = set()

    def find(self, ask: Ask) -> tuple[int, ...]:
        """The heights, best first, as far as is known: upwards from 1080 while it says yes, else downwards until it
        does. Those below the best are taken to be there until they are refused. Six questions at most."""
        here = KNOWN_HEIGHTS.index(FIRST_TRIED)
        best: int | None = None
        for height in reversed(KNOWN_HEIGHTS[: here + 1]):
            if not self._has(height, ask):
                break
            best = height
        if best is None:
            best = next((height for height in KNOWN_HEIGHTS[here + 1 :] if self._has(height, ask)), None)
        return tuple(h for h in KNOWN_HEIGHTS if best is not None and h <= best and h not in self._refused)

    def next_lower(self, height: int, ask: Ask) -> tuple[int, str]:
        """This height and its link or, when it is refused, those of the next lower one. Raises RefusedError when no
        height is left."""
        for lower in (height, *(known for known in KNOWN_HEIGHTS if known < height)):
            if self._has(lower, ask):
                return lower, self._links.pop(lower, None) or ask(lower)
        raise RefusedError

    def _has(self, height: int, ask: Ask) -> bool:
        if height in self._links:
            return True
        if height in self._refused:
            return False
        try:
            self._links[height] = ask(height)
        except (RefusedError, QualityUnavailable):
            self._refused.add(height)
            return False
        return True
