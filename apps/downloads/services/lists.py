"""Search results, playlists and channels, page by page."""

from __future__ import annotations

from typing import Any

from apps.core.errors import InvalidParameter
from apps.downloads.providers.listing import Listing, ListKind, ListQuestion
from apps.downloads.providers.text import one_line
from apps.downloads.providers.ytdlp import ytdlp_provider
from apps.downloads.services.answers import duration_label, whole_seconds
from apps.downloads.services.lookups import Lookup, LookupKind, wait_for_lookup

MAX_LISTED = 500
"""How deep a list can be paged: YouTube is asked page after page from the start."""
MAX_WORDS_CHARS = 200


def get_listing(question: ListQuestion, *, waited_s: float) -> Listing:
    """A page of a list. Raises Suspend while it is being asked for, NotFound, InvalidParameter beyond MAX_LISTED."""
    if question.first + question.page_size - 1 > MAX_LISTED:
        raise InvalidParameter(f"page: lists can be read up to entry {MAX_LISTED}.", parameter="page")
    lookup = Lookup(
        kind=LookupKind(question.kind.value),
        subject=question.subject,
        detail=f"{question.page}:{question.page_size}",
    )
    return Listing.model_validate(wait_for_lookup(lookup, waited_s=waited_s))


def ask_for_list(lookup: Lookup, timeout_s: float) -> dict[str, Any]:
    """The answer to record for a list. Raises what YtDlpProvider.list_videos raises."""
    page, _, page_size = lookup.detail.partition(":")
    kind = ListKind(lookup.kind.value)
    question = ListQuestion(kind=kind, subject=lookup.subject, page=int(page), page_size=int(page_size))
    return ytdlp_provider().list_videos(question, timeout_s=timeout_s).model_dump(mode="json")


def clean_words(text: str) -> str:
    """Words to search for, so that the same ones are the same question. Raises InvalidParameter for none."""
    words = one_line(text)
    if not 1 <= len(words) <= MAX_WORDS_CHARS:
        raise InvalidParameter(f"q: 1 to {MAX_WORDS_CHARS} characters to search for.", parameter="q")
    return words


def list_answer(question: ListQuestion, listing: Listing, *, response_time_s: float) -> dict[str, Any]:
    """The answer to a search, playlist or channel request: every field is always there."""
    is_search = question.kind is ListKind.SEARCH
    return {
        "status": True,
        "kind": question.kind.value,
        "id": None if is_search else listing.list_id,
        "title": question.subject if is_search else listing.title,
        "channel": listing.channel,
        "channel_id": listing.channel_id,
        "total": listing.total,
        "page": question.page,
        "page_size": question.page_size,
        "has_more": listing.has_more,
        "videos": [
            {
                "video_id": video.video_id,
                "url": f"https://www.youtube.com/watch?v={video.video_id}",
                "title": video.title,
                "channel": video.channel or listing.channel,
                "channel_id": video.channel_id or listing.channel_id,
                "duration": duration_label(video.duration_s),
                "duration_seconds": whole_seconds(video.duration_s),
                "thumbnail": f"https://i.ytimg.com/vi/{video.video_id}/hqdefault.jpg",
                "view_count": video.view_count,
                "live": video.live,
            }
            for video in listing.videos
        ],
        "response_time": round(response_time_s, 4),
    }
