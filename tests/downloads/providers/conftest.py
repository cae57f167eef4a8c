"""A YouTube stand-in and the yt-dlp provider pointed at it, shared because starting yt-dlp takes a second."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from apps.downloads.providers.ytdlp import YtDlpProvider
from tests.standins.youtube import YouTubeStandIn


@pytest.fixture(scope="module")
def youtube() -> Iterator[YouTubeStandIn]:
    with YouTubeStandIn() as running:
        yield running


@pytest.fixture(scope="module")
def shared_ytdlp(youtube: YouTubeStandIn) -> Iterator[YtDlpProvider]:
    provider = YtDlpProvider(options=json.loads(youtube.settings["YTDLP_OPTIONS"]))
    yield provider
    provider.close()


@pytest.fixture
def ytdlp(shared_ytdlp: YtDlpProvider, youtube: YouTubeStandIn) -> YtDlpProvider:
    """The provider, with a stand-in that has neither counts nor faults and nothing remembered."""
    youtube.faults.clear()
    youtube.counts.clear()
    shared_ytdlp._remembered.clear()
    return shared_ytdlp
