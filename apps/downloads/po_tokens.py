"""PO tokens as operators paste them: checked, and taken apart for yt-dlp.

Each line is ``CLIENT.CONTEXT+TOKEN``, as yt-dlp takes them (``web.gvs+...``); one line may be ``visitor_data=...``: the
visitor that the tokens were made for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from apps.core.errors import InvalidParameter

MAX_TOKENS = 10
MAX_CHARS = 16 * 1024
VISITOR = "visitor_data="
_TOKEN = re.compile(r"(?P<client>[a-z][a-z_]{1,30})\.(?P<context>gvs|player|subs)\+[A-Za-z0-9_%=-]{8,4000}", re.ASCII)
_VISITOR = re.compile(r"[A-Za-z0-9_%=-]{8,1000}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class PoTokens:
    """Tokens that belong together. ``visitor_data`` is empty when they are bound to an account or to nothing."""

    tokens: tuple[str, ...] = field(repr=False)
    visitor_data: str = field(default="", repr=False)

    @property
    def clients(self) -> tuple[str, ...]:
        """YouTube's clients that they are for."""
        return tuple(dict.fromkeys(token.partition(".")[0] for token in self.tokens))

    def as_text(self) -> str:
        return "\n".join((*self.tokens, *((f"{VISITOR}{self.visitor_data}",) if self.visitor_data else ())))

    def describe(self) -> str:
        """In a few words, without anything secret."""
        names = ", ".join(dict.fromkeys(token.partition("+")[0] for token in self.tokens))
        return f"{names}, {'of a visitor: used without cookies' if self.visitor_data else 'of no visitor'}"


def read_po_tokens(text: str) -> PoTokens:
    """Raises InvalidParameter, without quoting anything of it."""
    wrong = InvalidParameter(
        "tokens: one a line, each CLIENT.CONTEXT+TOKEN, such as web.gvs+AbC... (contexts: gvs, player, subs); "
        "and at most one line visitor_data=...",
        parameter="tokens",
    )
    if len(text) > MAX_CHARS:
        raise wrong
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    visitors = [line.removeprefix(VISITOR) for line in lines if line.startswith(VISITOR)]
    tokens = tuple(line for line in lines if not line.startswith(VISITOR))
    if not 1 <= len(tokens) <= MAX_TOKENS or len(visitors) > 1 or not all(_TOKEN.fullmatch(token) for token in tokens):
        raise wrong
    if visitors and not _VISITOR.fullmatch(visitors[0]):
        raise wrong
    return PoTokens(tokens=tokens, visitor_data=visitors[0] if visitors else "")
