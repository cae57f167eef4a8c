"""Text from outside, made fit to be shown and stored."""

from __future__ import annotations

MAX_TITLE_CHARS = 500


def clean_text(text: str) -> str:
    """One line without control characters, of a bounded length."""
    return one_line(text[: 4 * MAX_TITLE_CHARS])[:MAX_TITLE_CHARS]


def one_line(text: str) -> str:
    """The same without control characters, and with single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
