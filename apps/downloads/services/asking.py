"""Who answers which kind of lookup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apps.downloads.services.lists import ask_for_list
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.downloads.services.subtitles import ask_for_subtitles
from apps.downloads.services.thumbnail_asking import ask_for_thumbnail

_ANSWERED_BY: dict[LookupKind, Callable[[Lookup, float], dict[str, Any]]] = {
    LookupKind.SEARCH: ask_for_list,
    LookupKind.PLAYLIST: ask_for_list,
    LookupKind.CHANNEL: ask_for_list,
    LookupKind.SUBTITLES: ask_for_subtitles,
    LookupKind.THUMBNAIL: ask_for_thumbnail,
}


def look_up(kind: str, subject: str, detail: str) -> None:
    """Answer one question and record what came of it. Idempotent; of many callers one asks outside."""
    lookup = Lookup(kind=LookupKind(kind), subject=subject, detail=detail)
    answer_lookup(lookup, _ANSWERED_BY[lookup.kind])
