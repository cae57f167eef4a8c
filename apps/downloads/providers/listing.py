"""Lists of videos: search results, playlists, and a channel's uploads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict


class ListKind(StrEnum):
    SEARCH = "search"
    PLAYLIST = "playlist"
    CHANNEL = "channel"


@dataclass(frozen=True, kw_only=True)
class ListQuestion:
    """A page of a list. ``subject``: the words, a playlist id, or a channel's path ("channel/UC...", "@handle")."""

    kind: ListKind
    subject: str
    page: int = 1
    page_size: int = 20

    @property
    def first(self) -> int:
        """The number of the page's first video, counted from 1."""
        return (self.page - 1) * self.page_size + 1

    @property
    def address(self) -> str:
        """What yt-dlp is asked for: made of the checked subject, never a caller's address."""
        if self.kind is ListKind.SEARCH:
            return f"ytsearch{self.first + self.page_size}:{self.subject}"
        if self.kind is ListKind.PLAYLIST:
            return f"https://www.youtube.com/playlist?list={self.subject}"
        return f"https://www.youtube.com/{quote(self.subject, safe='/@')}/videos"


class ListedVideo(BaseModel):
    """What a list says about one video: less than its own metadata."""

    model_config = ConfigDict(frozen=True)

    video_id: str
    title: str = ""
    channel: str = ""
    channel_id: str = ""
    duration_s: float | None = None
    view_count: int | None = None
    live: bool = False


class Listing(BaseModel):
    """One page. ``total`` is known for some playlists only."""

    model_config = ConfigDict(frozen=True)

    list_id: str = ""
    title: str = ""
    channel: str = ""
    channel_id: str = ""
    total: int | None = None
    has_more: bool = False
    videos: tuple[ListedVideo, ...] = ()
