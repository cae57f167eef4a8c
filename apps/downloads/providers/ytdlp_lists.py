"""Lists through yt-dlp: the question its process gets, and its answer in our words. Pure functions."""

from __future__ import annotations

import math
import re
from typing import Any

from apps.core.errors import ApiError, NotFound
from apps.downloads.providers.listing import ListedVideo, Listing, ListQuestion
from apps.downloads.providers.text import clean_text
from apps.downloads.providers.ytdlp_errors import map_failure

_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_NO_SUCH_LIST = re.compile(
    r"does not exist|HTTP Error 404|has been terminated|no longer available|playlist is private|unviewable|"
    r"does not have a \w+ tab|Failed to resolve url|is not available",
    re.IGNORECASE,
)
LIVE_STATES = ("is_live", "is_upcoming")


def list_question(question: ListQuestion) -> dict[str, Any]:
    """One more than the page holds is asked for, to learn whether there is a next page."""
    last = question.first + question.page_size
    key = "YoutubeSearch" if question.kind == "search" else "YoutubeTab"
    return {"list": question.address, "key": key, "items": f"{question.first}:{last}"}


def make_listing(answer: dict[str, Any], question: ListQuestion) -> Listing:
    """Raises NotFound for a list that is not there, else the error that yt-dlp's failure means."""
    found = answer.get("list")
    if not isinstance(found, dict):
        raise list_failure(answer.get("failure"))
    entries = found.get("entries")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    videos = [_video(entry) for entry in entries[: question.page_size] if _VIDEO_ID.fullmatch(str(entry.get("id")))]
    return Listing(
        list_id=_text(found, "id"),
        title=_text(found, "title").removesuffix(" - Videos"),
        channel=_text(found, "channel") or _text(found, "uploader"),
        channel_id=_text(found, "channel_id"),
        total=_whole(found.get("playlist_count")),
        has_more=len(entries) > question.page_size,
        videos=tuple(videos),
    )


def list_failure(failure: Any) -> ApiError:
    text = str(failure.get("text", "")) if isinstance(failure, dict) else ""
    if _NO_SUCH_LIST.search(text):
        return NotFound("There is no such playlist or channel, or it is private.")
    return map_failure(failure)


def _video(entry: dict[str, Any]) -> ListedVideo:
    return ListedVideo(
        video_id=str(entry["id"]),
        title=_text(entry, "title"),
        channel=_text(entry, "channel") or _text(entry, "uploader"),
        channel_id=_text(entry, "channel_id"),
        duration_s=_number(entry.get("duration")),
        view_count=_whole(entry.get("view_count")),
        live=entry.get("live_status") in LIVE_STATES,
    )


def _text(source: dict[str, Any], name: str) -> str:
    value = source.get(name)
    return clean_text(value) if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and value >= 0 else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
