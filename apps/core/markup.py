"""Our own texts as HTML: settings' descriptions and those of the API's views."""

from __future__ import annotations

from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString


def with_code(text: str) -> SafeString:
    """A text with what stands in `backticks` as code, everything else escaped."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # one that is not closed
        return escape(text)
    return format_html_join(
        "", "{}", ((format_html("<code>{}</code>", piece) if at % 2 else piece,) for at, piece in enumerate(pieces))
    )
