"""The dialect "query": ``GET /api/song?query=<words>&api=``; with ``download=true`` the bytes themselves."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.suspend import waited_s
from apps.downloads.dialects.base import DialectView, fields_of, is_yes
from apps.downloads.dialects.finding import find_media
from apps.downloads.dialects.handover import STREAM_HEADER
from apps.telegram_cache.documents import MediaKind


class QueryView(DialectView):
    """The song that some words mean."""

    def get(self, request: Request) -> Response:
        fields = fields_of(request)
        state = find_media(
            fields.get("query", ""), MediaKind.AUDIO, grant=request.user, wait_s=0, waited_s=waited_s(request)
        )
        file = self.describe(state, key_prefix=request.user.prefix)
        if is_yes(fields.get("download")):
            link = urlsplit(file["download_url"])
            headers = {"Location": file["download_url"], STREAM_HEADER: f"{link.path}?{link.query}"}
            return Response(status=307, headers=headers)
        return Response(song(file))


def song(file: dict[str, Any]) -> dict[str, Any]:
    """The answer for a file: ``file`` is the one of /api/v1."""
    return {
        "stream": file["stream_url"],
        "title": file["title"],
        "duration": file["duration_seconds"] or 0,
        "thumbnail": file["thumbnail"],
    }
