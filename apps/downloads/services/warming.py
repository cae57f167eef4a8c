"""Fetches a list of links ahead of time, a few at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from apps.core.errors import ApiError, InvalidUrl, UpstreamTimeout
from apps.core.suspend import Suspend
from apps.core.wake import wait
from apps.downloads.documents import JobPriority
from apps.downloads.links import parse_video_id, watch_url
from apps.downloads.providers.listing import Listing, ListKind, ListQuestion
from apps.downloads.services.lists import MAX_LISTED, get_listing
from apps.downloads.services.media import MediaAsk, Tier, join_fetch, request_media
from apps.telegram_cache.documents import MediaKind

RECHECK_S = 1.0
MAX_LINKS = 100_000
PLAYLIST_PAGE = 50


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """What came of one link. ``problem`` is empty when the file is there now."""

    link: str
    was_there: bool = False
    problem: str = ""


@dataclass(kw_only=True)
class _Running:
    link: str
    ask: MediaAsk
    started_at: float
    asked_at: float = 0.0
    topic: str = ""
    first: bool = True


def read_playlist(playlist_id: str, *, timeout_s: float) -> Iterator[str]:
    """The links of a playlist's first MAX_LISTED videos but live ones, page by page. Raises NotFound, the upstream
    failure, and UpstreamTimeout when a page is not there after ``timeout_s``. Workers must run."""
    for page in range(1, MAX_LISTED // PLAYLIST_PAGE + 1):
        question = ListQuestion(kind=ListKind.PLAYLIST, subject=playlist_id, page=page, page_size=PLAYLIST_PAGE)
        listing = _wait_for(question, timeout_s)
        yield from (watch_url(video.video_id) for video in listing.videos if not video.live)
        if not listing.has_more:
            return


def _wait_for(question: ListQuestion, timeout_s: float) -> Listing:
    started_at = time.monotonic()
    while True:
        waited_s = time.monotonic() - started_at
        if waited_s > timeout_s:
            raise UpstreamTimeout
        try:
            return get_listing(question, waited_s=waited_s)
        except Suspend as pending:
            wait(pending.topic, timeout_s=RECHECK_S)


def warm(
    links: Iterable[str], *, kind: MediaKind, wish: str | None, max_active: int, timeout_s: float
) -> Iterator[Warmed]:
    """See to it that every link's file is here or in Telegram; yields each as it is done, in no fixed order.

    At most ``max_active`` at once, each for at most ``timeout_s`` (its fetch goes on after that). Workers must run.
    """
    waiting = iter(links)
    running: deque[_Running] = deque()
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < max_active:
            link = next(waiting, None)
            if link is None:
                exhausted = True
                break
            try:
                ask = MediaAsk(kind=kind, video_id=parse_video_id(link), wish=wish, priority=JobPriority.BATCH)
            except InvalidUrl as error:
                yield Warmed(link=link, problem=error.message)
                continue
            running.append(_Running(link=link, ask=ask, started_at=time.monotonic()))
        for _ in range(len(running)):
            item = running.popleft()
            done = _look(item, timeout_s)
            if done is None:
                running.append(item)
            else:
                yield done
        if running and (exhausted or len(running) >= max_active):
            wait(running[0].topic, timeout_s=RECHECK_S)


def _look(item: _Running, timeout_s: float) -> Warmed | None:
    waited_s = time.monotonic() - item.started_at
    first, item.first = item.first, False
    try:
        state = request_media(item.ask, key_prefix="", wait_s=timeout_s, waited_s=waited_s)
    except Suspend as pending:
        item.topic = pending.topic
        kind, _, asset_id = pending.topic.partition(":")
        if kind == "asset":
            join_fetch(asset_id, key_prefix="")  # a warm-up that is cancelled, which is the server too, leaves it be
        return None
    except ApiError as error:
        return Warmed(link=item.link, problem=error.message)
    if state.tier is Tier.EXTERNAL:
        return Warmed(link=item.link, problem=UpstreamTimeout.default_message)
    return Warmed(link=item.link, was_there=first)
