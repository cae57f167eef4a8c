"""Fetching a list ahead of time: never more at once than allowed, and every link gets its line."""

from __future__ import annotations

import pytest

from apps.core.errors import VideoPrivate
from apps.core.suspend import Suspend
from apps.downloads.services import warming
from apps.downloads.services.media import MediaState, Tier
from apps.downloads.services.warming import Warmed, warm
from apps.telegram_cache.documents import Asset, MediaKind

IDS = [f"video00000{number}" for number in range(6)]


@pytest.fixture
def looks(monkeypatch):
    """How often each video was looked at; each is there at the third look, the first one at once, the last never."""
    seen: dict[str, int] = {}
    active: set[str] = set()
    most: list[int] = [0]

    def request_media(ask, *, key_prefix, wait_s, waited_s):
        seen[ask.video_id] = seen.get(ask.video_id, 0) + 1
        active.add(ask.video_id)
        most[0] = max(most[0], len(active))
        if ask.video_id == IDS[-1]:
            active.discard(ask.video_id)
            raise VideoPrivate
        if ask.video_id != IDS[0] and seen[ask.video_id] < 3:
            raise Suspend(f"asset:{ask.video_id}")
        active.discard(ask.video_id)
        return MediaState(asset=Asset(), tier=Tier.HOT, job=None)

    monkeypatch.setattr(warming, "request_media", request_media)
    monkeypatch.setattr(warming, "wait", lambda topic, *, timeout_s: True)
    return most


def run(links: list[str], *, max_active: int = 2) -> dict[str, Warmed]:
    done = warm(links, kind=MediaKind.AUDIO, wish=None, max_active=max_active, timeout_s=10)
    return {item.link: item for item in done}


def test_every_link_is_fetched_a_few_at_a_time(looks):
    done = run(IDS)
    assert set(done) == set(IDS)
    assert [done[link].was_there for link in IDS[:2]] == [True, False]
    assert [bool(done[link].problem) for link in IDS] == [False] * 5 + [True]
    assert looks == [2]


def test_what_is_no_link_is_named_and_does_not_stop_the_others(looks):
    done = run(["https://example.com/", IDS[0]])
    assert done["https://example.com/"].problem
    assert not done[IDS[0]].problem


def test_an_empty_list_is_fine(looks):
    assert run([]) == {}
