"""Answers that can be given at once, for the fast lane: looked up as the views do it, remembered for a moment.

What is remembered here was true for the views at most MAX_AGE_S ago; that a hot file is still there is looked at each
time, once for all who ask in the same turn of the event loop, and that it is whole every HOT_CHECK_S. A process that
hears of changes (``changed``) forgets at once what they are about.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rest_framework.renderers import JSONRenderer

from apps.core.asker import asker_var
from apps.core.errors import ApiError
from apps.core.suspend import Suspend
from apps.downloads.services.answers import (
    MediaLinks,
    describe_media,
    info_answer,
    info_headers,
    media_links,
    shown_response_time,
)
from apps.downloads.services.info import get_info
from apps.downloads.services.media import MediaAsk, MediaState, Tier, hot_store, resolve_key, tier_of
from apps.telegram_cache.selectors import find_asset

MAX_AGE_S = 1.0
AGEING_S = 0.6
HOT_CHECK_S = 0.05
MAX_REMEMBERED = 4096

_MARK = secrets.token_hex(12)  # in no title: made anew at each start
_SLOTS = ("download_url", "stream_url", "expires_at", "response_time")
_SLOT_PATTERN = re.compile(f'"{_MARK}-({"|".join(_SLOTS)})"')

Shape = Callable[[dict[str, Any]], dict[str, Any]]
"""From the file as /api/v1 describes it to an answer."""


@dataclass(frozen=True)
class Question:
    """What somebody asks, apart from who it is: metadata (``ask`` is None) or a file, to be answered in a shape."""

    video_id: str
    ask: MediaAsk | None = None
    shape: Shape | None = None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.video_id, self.ask, self.shape))


@dataclass(slots=True, kw_only=True)
class Ready:
    """An answer but for its links and times."""

    pieces: list[str]  # JSON text and, at odd places, names of slots
    read_at: float  # time.monotonic() before the first look
    headers: tuple[tuple[bytes, bytes], ...] = ()
    asset_id: str | None = None
    generation: int = 0
    duration_s: float | None = None
    size_bytes: int | None = None
    tier: Tier | None = None
    stream_path: str = ""
    hot_file: str = ""
    hot_checked_at: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)  # for the event record
    kinds: dict[tuple[str, str], Any] = field(default_factory=dict)  # what the lane makes once for all its answers
    template: str = field(init=False)  # the pieces as one text for ``%``, by name

    def __post_init__(self) -> None:
        texts = [piece.replace("%", "%%") for piece in self.pieces]
        texts[1::2] = [f"%({name})s" for name in self.pieces[1::2]]
        self.template = "".join(texts)

    @property
    def is_ageing(self) -> bool:
        """Whether it is time for another look, so that nobody will have to wait for one."""
        return time.monotonic() - self.read_at >= AGEING_S

    def body(self, *, base_url: str, key_prefix: str, response_time_s: float, bound_to: str = "") -> bytes:
        """The JSON, with links signed for this key, now, for ``bound_to`` alone. Nothing in ``base_url`` may need
        escaping in JSON."""
        took = repr(shown_response_time(response_time_s))
        if self.asset_id is None:
            return (self.template % {"response_time": took}).encode()
        download, stream, expires_at = media_links(
            self.stream_path, self.asset_id, base_url=base_url, key_prefix=key_prefix, bound_to=bound_to
        )
        values = {
            "download_url": f'"{download}"',
            "stream_url": f'"{stream}"',
            "expires_at": f'"{expires_at}"',
            "response_time": took,
        }
        return (self.template % values).encode()


def look_up(question: Question) -> Ready | None:
    """The answer as it stands, or None when it takes more than looking: then a view must decide. May block.

    Starts nothing but what a view would start in its place (metadata asked for anew, behind what anybody waits for).
    Raises what MongoDB raises.
    """
    read_at = time.monotonic()
    token = asker_var.set(None)  # several keys may share this look
    try:
        if question.ask is None:
            return _look_up_info(question.video_id, read_at)
        key = resolve_key(question.ask, waited_s=0)
    except (Suspend, ApiError):
        return None
    finally:
        asker_var.reset(token)
    asset = find_asset(key.asset_id)
    tier = tier_of(asset)
    if asset is None or tier is Tier.EXTERNAL:
        return None
    return _ready_media(MediaState(asset=asset, tier=tier, job=None), question.shape, read_at)


def _ready_media(state: MediaState, shape: Shape | None, read_at: float) -> Ready:
    asset = state.asset
    download_url, stream_url, expires_at, response_time = (f"{_MARK}-{slot}" for slot in _SLOTS)
    file = describe_media(state, MediaLinks(download_url, stream_url, expires_at))
    answer = shape(file) if shape else {**file, "response_time": response_time}
    return Ready(
        pieces=_split(answer),
        read_at=read_at,
        asset_id=asset.id,
        generation=asset.generation,
        duration_s=asset.duration_s,
        size_bytes=asset.size_bytes,
        tier=state.tier,
        stream_path=f"/stream/{asset.kind}/{asset.video_id}",
        hot_file=hot_store().data_file(asset.id, asset.generation) if state.tier is Tier.HOT else "",
        hot_checked_at=read_at,
        facts={"video_id": asset.video_id, "asset_id": asset.id, "tier": state.tier.value},
    )


def _look_up_info(video_id: str, read_at: float) -> Ready | None:
    info = get_info(video_id)
    if info is None:
        return None
    answer = {**info_answer(info, response_time_s=0), "response_time": f"{_MARK}-response_time"}
    headers = tuple((name.lower().encode(), value.encode()) for name, value in info_headers(info).items())
    return Ready(pieces=_split(answer), read_at=read_at, headers=headers, facts={"video_id": video_id})


def _is_still_hot(ready: Ready, now: float) -> bool:
    if not os.access(ready.hot_file, os.F_OK):  # half of what a stat costs, at each request
        return False
    if now - ready.hot_checked_at >= HOT_CHECK_S:
        ready.hot_checked_at = now
        return hot_store().is_complete(ready.asset_id or "", ready.generation)
    return True


def _split(answer: dict[str, Any]) -> list[str]:
    return _SLOT_PATTERN.split(JSONRenderer().render(answer).decode())


@dataclass
class ReadyAnswers:
    """The newest answers by question. Belongs to one event loop; bounded."""

    _known: OrderedDict[Question, Ready] = field(default_factory=OrderedDict)
    _changed_at: OrderedDict[str, float] = field(default_factory=OrderedDict)  # by video id
    _seen: set[str] = field(default_factory=set)  # hot files that were there in this turn of the event loop

    def get(self, question: Question, *, max_age_s: float = MAX_AGE_S) -> Ready | None:
        """What is remembered and surely as good as a look, or None: then ``look_up`` (in a thread) and ``put``."""
        ready = self._known.get(question)
        if ready is None:
            return None
        now = time.monotonic()
        if now - ready.read_at >= max_age_s:
            return None
        if ready.tier is Tier.HOT and ready.hot_file not in self._seen:
            if not _is_still_hot(ready, now):
                del self._known[question]
                return None
            if not self._seen:
                asyncio.get_running_loop().call_soon(self._seen.clear)
            self._seen.add(ready.hot_file)
        return ready

    def put(self, question: Question, ready: Ready) -> None:
        """Remember it, unless it has changed since it was read."""
        if self._changed_at.get(question.video_id, 0.0) >= ready.read_at:
            return
        self._known[question] = ready
        self._known.move_to_end(question)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
