"""From what a caller pastes to a playlist id or a channel's path. Nothing here ever makes a request."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from apps.core.errors import InvalidUrl
from apps.downloads.links import MAX_LINK_CHARS

_PLAYLIST_ID = re.compile(r"(?:(?:PL|EC|UU|FL|PU)[A-Za-z0-9_-]{10,60}|OLAK5uy_[A-Za-z0-9_-]{10,60})", re.ASCII)
_CHANNEL_ID = re.compile(r"UC[A-Za-z0-9_-]{22}", re.ASCII)
_HANDLE = re.compile(r"@[\w.\u00b7-]{3,30}")
_LINK = re.compile(
    r"(?:(?:https?:)?//)?"
    r"(?P<host>(?:(?:www|m|music)\.)?youtube\.com|(?:www\.)?youtu\.be)"
    r"(?P<path>/[^?#\s]*)?"
    r"(?P<query>\?[^#\s]*)?"
    r"(?:\#\S*)?",
    re.IGNORECASE | re.ASCII,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LIST_PAGES = re.compile(r"/(?:playlist|watch|embed/[A-Za-z0-9_-]{11}|embed/videoseries)/?", re.ASCII)
_TABS = r"(?:/(?:videos|featured|shorts|streams|playlists|community|about))?/?"
_ID_PAGE = re.compile(rf"/channel/(?P<id>UC[A-Za-z0-9_-]{{22}}){_TABS}", re.ASCII)
_NAMED_PAGE = re.compile(rf"/(?P<kind>c|user)/(?P<name>[\w.-]{{1,60}}){_TABS}")
_HANDLE_PAGE = re.compile(rf"/(?P<handle>@[\w.\u00b7-]{{3,30}}){_TABS}")

NO_PLAYLIST = "This is not a link to a YouTube playlist, nor a playlist's id. Mixes and private lists cannot be read."
NO_CHANNEL = "This is not a link to a YouTube channel, a channel's id or a @handle."


def parse_playlist_id(text: str) -> str:
    """The playlist id in a link (playlist, or watch with ``list=``), or the id itself. Raises InvalidUrl.

    Not taken: mixes (RD...), which never end, and lists that belong to whoever is signed in (LL, WL, LM).
    """
    given = _trimmed(text)
    if _PLAYLIST_ID.fullmatch(given):
        return given
    match = _LINK.fullmatch(given)
    if match is not None:
        is_short = match["host"].lower().endswith("youtu.be")
        if is_short or _LIST_PAGES.fullmatch(match["path"] or ""):
            named = dict(reversed(parse_qsl((match["query"] or "?")[1:]))).get("list", "")  # the first one counts
            if _PLAYLIST_ID.fullmatch(named):
                return str(named)
    raise InvalidUrl(NO_PLAYLIST)


def parse_channel(text: str) -> str:
    """A channel's path, "channel/UC...", "@handle", "c/name" or "user/name", from a link, an id or a handle.

    Which tab a link names makes no difference. Raises InvalidUrl.
    """
    given = _trimmed(text)
    if _CHANNEL_ID.fullmatch(given):
        return f"channel/{given}"
    if _HANDLE.fullmatch(given):
        return given
    match = _LINK.fullmatch(given)
    path = unquote((match["path"] or "") if match else "")
    if match is None or match["host"].lower().endswith("youtu.be") or _CONTROL.search(path):
        raise InvalidUrl(NO_CHANNEL)
    if page := _ID_PAGE.fullmatch(path):
        return f"channel/{page['id']}"
    if page := _HANDLE_PAGE.fullmatch(path):
        return str(page["handle"])
    if page := _NAMED_PAGE.fullmatch(path):
        return f"{page['kind']}/{page['name']}"
    raise InvalidUrl(NO_CHANNEL)


def _trimmed(text: str) -> str:
    link = text.strip(" \t\r\n") if len(text) <= MAX_LINK_CHARS else ""
    return "" if _CONTROL.search(link) else link
