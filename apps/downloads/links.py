"""From what a caller pastes to an 11-character video id. Nothing here ever makes a request."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from apps.core.errors import InvalidUrl

MAX_LINK_CHARS = 2048
_SURROUNDING = " \t\r\n"

_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_PLAYER_PAGES = frozenset({"videoseries", "live_stream"})  # /embed/<these> are 11 characters and no video
_LINK = re.compile(
    r"(?:(?:https?:)?//)?"
    r"(?P<host>(?:(?:www|m|music)\.)?youtube\.com|(?:www\.)?youtube-nocookie\.com|(?:www\.)?youtu\.be)"
    r"(?P<path>/[A-Za-z0-9_/-]*)?"
    r"(?P<query>\?[^#\s]*)?"
    r"(?P<fragment>\#\S*)?",
    re.IGNORECASE | re.ASCII,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ID_PATH = re.compile(r"/(?:shorts|live|embed|v|e|watch)/(?P<id>[A-Za-z0-9_-]{11})/?")
_SHORT_PATH = re.compile(r"/(?P<id>[A-Za-z0-9_-]{11})/?")


def parse_video_id(text: str) -> str:
    """The video id in a link, or the id itself. Raises InvalidUrl for everything else, and nothing else.

    Taken: youtube.com (also www., m., music.), youtube-nocookie.com and youtu.be, with or without a scheme; the pages
    watch, shorts, live, embed, v and e; other parameters, playlists and fragments are ignored. Not taken: ports, user
    names, links that only lead to a video (attribution_link, redirect), channel and playlist pages.
    """
    link = text.strip(_SURROUNDING) if len(text) <= MAX_LINK_CHARS else ""
    found = link if _VIDEO_ID.fullmatch(link) else _id_in_link(link)
    if found is None or found in _PLAYER_PAGES:
        raise InvalidUrl
    return found


def _id_in_link(link: str) -> str | None:
    match = None if _CONTROL.search(link) else _LINK.fullmatch(link)
    if match is None:
        return None
    path = match["path"] or "/"
    if match["host"].lower().endswith("youtu.be"):
        short = _SHORT_PATH.fullmatch(path)
        return short["id"] if short else None
    if path.rstrip("/") == "/watch":
        return _id_in_query((match["query"] or "?")[1:])
    page = _ID_PATH.fullmatch(path)
    return page["id"] if page else None


def _id_in_query(query: str) -> str | None:
    """The first ``v`` counts, as it does for YouTube."""
    for name, value in parse_qsl(query):
        if name == "v":
            return value if _VIDEO_ID.fullmatch(value) else None
    return None


def watch_url(video_id: str) -> str:
    """The plain address of a video's page."""
    return f"https://www.youtube.com/watch?v={video_id}"
