"""Text from outside, made fit to be shown and stored."""

from __future__ import annotations

MAX_TITLE_CHARS = 500


def clean_text(text: str) -> str:
    """One line without control characters, of a bounded length."""
    visible = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_TITLE_CHARS])
    return " ".join(visible.split())[:MAX_TITLE_CHARS]
