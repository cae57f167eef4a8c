"""The addresses of each dialect."""

from __future__ import annotations

from collections.abc import Iterable

from django.urls import URLPattern, path

from apps.downloads.dialects.query import QueryView
from apps.downloads.dialects.song import SongView, VideoView
from apps.downloads.dialects.track import TrackView
from apps.downloads.dialects.v2 import DownloadView, JobStatusView

PATTERNS: dict[str, list[URLPattern]] = {
    "song": [
        path("song/<path:text>", SongView.as_view()),
        path("video/<path:text>", VideoView.as_view()),
    ],
    "track": [path("api/track", TrackView.as_view())],
    "v2": [
        path("youtube/v2/download", DownloadView.as_view()),
        path("youtube/jobStatus", JobStatusView.as_view()),
        path("queued/youtube/v2/download", DownloadView.as_view(always_queued=True)),
        path("queued/youtube/jobStatus", JobStatusView.as_view()),
    ],
    "query": [path("api/song", QueryView.as_view())],
}


def dialect_patterns(names: Iterable[str]) -> list[URLPattern]:
    """What to add to the URL configuration for the dialects that the setting DIALECTS names."""
    return [pattern for name in names for pattern in PATTERNS[name]]
