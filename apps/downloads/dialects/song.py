"""The dialect "song": ``GET /song/<id>?api=`` and ``/video/<id>?api=``, asked again until the file is there.

The bots poll about every 4 s, up to 10 times, and read ``status``, ``link``, ``format`` and ``title``. They give up on
any HTTP status but 200, so what happens to the video is told with 200.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import ApiError, NotReady, Overloaded, ScopeMissing
from apps.core.suspend import Suspend, waited_s
from apps.downloads.dialects.base import DialectView
from apps.downloads.dialects.finding import find_media
from apps.downloads.services.answers import container_of
from apps.downloads.services.cache_stats import note_polled
from apps.downloads.services.media import Tier
from apps.telegram_cache.documents import MediaKind

POLL_WAIT_S = 2.5
"""A poll is held for so long if that makes it the last one."""


class SongView(DialectView):
    """The sound of a video."""

    kind: ClassVar[MediaKind] = MediaKind.AUDIO
    usual_format: ClassVar[str] = "m4a"

    def get(self, request: Request, text: str) -> Response:
        if "v" in request.query_params:  # a whole watch link in the path, whose "?" began the query
            text = f"{text}?v={request.query_params['v']}"
        try:
            return Response(self._state(request, text))
        except (NotReady, Overloaded, ScopeMissing):
            raise
        except ApiError as error:
            self.note(error=error.code)
            return Response(self._answer("error", error=error.code, message=error.message))

    def _state(self, request: Request, text: str) -> dict[str, Any]:
        waited = waited_s(request)
        try:
            state = find_media(text, self.kind, grant=request.user, wait_s=POLL_WAIT_S, waited_s=waited)
        except Suspend:
            if waited < POLL_WAIT_S:
                raise
            return self._answer("downloading")
        if state.tier is Tier.EXTERNAL:
            note_polled(state, key_prefix=request.user.prefix)
            return self._answer("downloading", format=container_of(state.asset), title=state.asset.title)
        return done(self.describe(state, key_prefix=request.user.prefix))

    def _answer(self, status: str, **fields: Any) -> dict[str, Any]:
        return {"status": status, "link": "", "format": self.usual_format, "title": "", **fields}


def done(file: dict[str, Any]) -> dict[str, Any]:
    """The last answer: ``file`` is the one of /api/v1."""
    return {"status": "done", "link": file["download_url"], "format": file["container"], "title": file["title"]}


class VideoView(SongView):
    """A whole video."""

    kind = MediaKind.VIDEO
    usual_format = "mp4"
