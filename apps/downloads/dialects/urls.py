"""The addresses of each dialect."""

from __future__ import annotations

from django.urls import ResolverMatch, URLPattern, path

from apps.core.tunables import dialects
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


class _WhileOn(URLPattern):
    """An address that is only there while its dialect is on: otherwise it is answered as any unknown one is."""

    def __init__(self, dialect: str, known: URLPattern) -> None:
        super().__init__(known.pattern, known.callback, known.default_args, known.name)
        self._is_on = dialects[dialect]

    def resolve(self, path: str) -> ResolverMatch | None:
        return super().resolve(path) if self._is_on() else None


def dialect_patterns() -> list[URLPattern]:
    """What to add to the URL configuration: every dialect, each there while it is on (settings page, DIALECTS)."""
    return [_WhileOn(name, pattern) for name, patterns in PATTERNS.items() for pattern in patterns]
