"""What stands in one place of a table, and its HTML: in Python, for a page has hundreds, and templates are slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import conditional_escape, escape, format_html, format_html_join
from django.utils.safestring import SafeString

from apps.dashboard.templatetags.ui import NOT_KNOWN, grouped, human_bytes, when


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Plain data; ``{{ cell }}`` in any template is its HTML, every text in it escaped.

    ``kind`` says what ``value`` is: "text", "code" and "badge" show it as it is, "number" and "bytes" take a number or
    None, "badges" a list of texts, "progress" per cent or None, "time" a datetime or None (then ``note`` is said),
    "changes" a list of (field, before, after).
    """

    kind: str = "text"
    value: Any = None
    href: str = ""  # of a text or a code
    tone: str = "secondary"  # of a badge: success, warning, danger, info, secondary
    note: str = ""  # a second, quieter line

    def __html__(self) -> SafeString:
        return _KINDS[self.kind](self)

    __str__ = __html__


def _text(cell: Cell) -> SafeString:
    return format_html("{}{}", _linked(cell, cell.value or NOT_KNOWN), _note(cell))


def _code(cell: Cell) -> SafeString:
    return _linked(cell, format_html("<code>{}</code>", cell.value or NOT_KNOWN))


def _number(cell: Cell) -> SafeString:
    return escape(grouped(cell.value))


def _bytes(cell: Cell) -> SafeString:
    return escape(human_bytes(cell.value))


def _badge(cell: Cell) -> SafeString:
    return format_html('<span class="state state-{}">{}</span>{}', cell.tone, cell.value, _note(cell))


def _badges(cell: Cell) -> SafeString:
    tags = format_html_join("", '<span class="tag">{}</span>', ((text,) for text in cell.value))
    return format_html('<span class="tags">{}</span>', tags or NOT_KNOWN)


def _progress(cell: Cell) -> SafeString:
    if cell.value is None:
        return _note(cell)
    bar = '<progress max="100" value="{}" aria-label="Progress">{} %</progress>{}'
    return format_html(bar, cell.value, cell.value, _note(cell))


def _time(cell: Cell) -> SafeString:
    return when(cell.value) if cell.value else _quiet(cell.note)


def _changes(cell: Cell) -> SafeString:
    changes = [
        format_html('<div class="change"><span class="note">{}</span> {}{}</div>', name, _was(before), _or_dash(after))
        for name, before, after in cell.value
    ]
    return format_html_join("", "{}", ((change,) for change in changes)) if changes else _quiet()


def _was(before: str | None) -> SafeString:
    return SafeString("") if before is None else format_html("<s>{}</s> → ", before)


def _or_dash(value: str | None) -> str:
    return NOT_KNOWN if value is None else value


def _linked(cell: Cell, shown: Any) -> SafeString:
    if not cell.href:
        return conditional_escape(shown)
    return format_html('<a class="cell-link" href="{}">{}</a>', cell.href, shown)


def _note(cell: Cell) -> SafeString:
    return format_html('<div class="note">{}</div>', cell.note) if cell.note else SafeString("")


def _quiet(text: str = "") -> SafeString:
    return format_html('<span class="note">{}</span>', text or NOT_KNOWN)


_KINDS: Mapping[str, Callable[[Cell], SafeString]] = {
    "text": _text,
    "code": _code,
    "number": _number,
    "bytes": _bytes,
    "badge": _badge,
    "badges": _badges,
    "progress": _progress,
    "time": _time,
    "changes": _changes,
}
