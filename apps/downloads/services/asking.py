"""Who answers which kind of lookup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apps.downloads.services.lists import ask_for_list
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup

_ANSWERED_BY: dict[LookupKind, Callable[[Lookup, float], dict[str, Any]]] = {
    LookupKind.SEARCH: ask_for_list,
    LookupKind.PLAYLIST: ask_for_list,
    LookupKind.CHANNEL: ask_for_list,
}


def look_up(kind: str, subject: str, detail: str) -> None:
    """Answer one question and record what came of it. Idempotent; of many callers one asks outside."""
    lookup = Lookup(kind=LookupKind(kind), subject=subject, detail=detail)
    answer_lookup(lookup, _ANSWERED_BY[lookup.kind])
