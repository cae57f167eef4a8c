"""Orders of bots that ask by an id how their file is coming along."""

from __future__ import annotations

from apps.downloads.documents import MediaTicket
from apps.telegram_cache.documents import MediaKind


def make_ticket(*, query: str, kind: MediaKind, key_prefix: str) -> MediaTicket:
    """Keep an order for a day. ``query`` is what the bot sent: a link, an id or words."""
    ticket = MediaTicket(query=query.strip(), kind=kind.value, key_prefix=key_prefix)
    ticket.save(force_insert=True)
    return ticket
