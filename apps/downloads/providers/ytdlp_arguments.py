"""PO tokens as arguments of yt-dlp's YouTube extractor. Imports nothing of Django: yt-dlp's process uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_po_tokens(arguments: Mapping[str, Any], way: Mapping[str, Any]) -> dict[str, Any]:
    """``extractor_args`` with the tokens of a way, before those that the operator gave. Their clients are asked beside
    the usual ones (or those of the operator): a token only counts for its own."""
    youtube = dict(arguments.get("youtube") or {})
    youtube["po_token"] = [*way["po_tokens"], *youtube.get("po_token", [])]
    if way.get("visitor_data"):
        youtube["visitor_data"] = [way["visitor_data"]]
    clients = youtube.get("player_client") or ["default"]
    youtube["player_client"] = [*clients, *(client for client in way["clients"] if client not in clients)]
    return {**arguments, "youtube": youtube}


def parts_of_tokens(way: Mapping[str, Any]) -> list[str]:
    """What must not be said of them."""
    said = [token.partition("+")[2] for token in way.get("po_tokens") or ()]
    return [part for part in (*said, way.get("visitor_data") or "") if part]
