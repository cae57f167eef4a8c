"""The dialect "track": ``GET /api/track?url=&video=`` with the header X-API-Key, answered once, within 10 s.

The answer does not wait for the file: its links do. Where even the metadata takes too long, the answer goes without.
"""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import UpstreamTimeout
from apps.core.suspend import Suspend, waited_s
from apps.downloads.dialects.base import DialectView, fields_of, is_yes, kind_of
from apps.downloads.dialects.finding import find_video
from apps.downloads.open_links import open_link
from apps.downloads.services.media import MediaAsk, request_media
from apps.downloads.views.base import base_url

SEARCH_WAIT_S = 7.0
INFO_WAIT_S = 5.0


class TrackView(DialectView):
    """A file's link, under two names, and what it is."""

    def get(self, request: Request) -> Response:
        fields = fields_of(request)
        waited, prefix = waited_s(request), request.user.prefix
        try:
            video_id = find_video(fields.get("url", ""), grant=request.user, waited_s=waited)
        except Suspend:
            if waited >= SEARCH_WAIT_S:
                raise UpstreamTimeout from None
            raise
        ask = MediaAsk(kind=kind_of(is_yes(fields.get("video"))), video_id=video_id)
        try:
            state = request_media(ask, key_prefix=prefix, wait_s=0, waited_s=waited)
        except Suspend:
            if waited < INFO_WAIT_S:
                raise
            self.note(video_id=video_id)
            link = open_link(
                ask, base_url=base_url(request), key_prefix=prefix, attachment=True, bound_to=self.binding(prefix)
            )
            return Response(_answer(link, video_id))
        return Response(track(self.describe(state, key_prefix=prefix)))


def track(file: dict[str, Any]) -> dict[str, Any]:
    """The answer for a known file: ``file`` is the one of /api/v1."""
    about = {name: file[name] for name in ("title", "thumbnail")}
    return _answer(file["download_url"], file["video_id"], **about, duration=file["duration_seconds"] or 0)


def _answer(link: str, video_id: str, **known: Any) -> dict[str, Any]:
    return {
        "cdnurl": link,
        "url": link,
        "id": video_id,
        "key": video_id,
        "title": video_id,
        "duration": 0,
        "thumbnail": f"https://i.ytimg.com/vi/{video_id}/hqdefault.jpg",
        **known,
    }
