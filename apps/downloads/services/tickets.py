"""Orders of bots that ask by an id how their file is coming along."""

from __future__ import annotations

from apps.downloads.documents import MediaTicket
from apps.downloads.links import MAX_LINK_CHARS
from apps.downloads.providers.text import one_line
from apps.telegram_cache.documents import MediaKind


def make_ticket(*, query: str, kind: MediaKind, key_prefix: str) -> MediaTicket:
    """Keep an order for a day. ``query`` is what the bot sent: a link, an id or words that a file was found for, so
    that its first MAX_LINK_CHARS say all."""
    ticket = MediaTicket(query=one_line(query)[:MAX_LINK_CHARS], kind=kind.value, key_prefix=key_prefix)
    ticket.save(force_insert=True)
    return ticket
