"""What a list of documents looks like, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mongoengine import Document

from apps.core.clock import utcnow
from apps.core.search import SearchedDocument
from apps.dashboard.lists.cells import Cell
from apps.keys.documents import Role


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. ``cell`` turns a document into what is shown, or ``cells`` all documents of a page, where one look-up
    serves them all; ``sort`` is the field that a click on it sorts by."""

    label: str
    cell: Callable[[Any], Cell] = lambda _: Cell()
    cells: Callable[[Sequence[Any]], Sequence[Cell]] | None = None
    sort: str = ""
    numeric: bool = False

    def of(self, documents: Sequence[Any]) -> Sequence[Cell]:
        return self.cells(documents) if self.cells else [self.cell(document) for document in documents]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A choice above the list. ``where`` turns the chosen value into a MongoDB condition. ``always`` holds for every
    document: where nothing is chosen here, an index that begins with its field serves the other choices.
    """

    name: str
    label: str
    choices: Sequence[tuple[str, str]]
    where: Callable[[str], Mapping[str, Any]]
    always: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that can be done with one row; the link leads to its confirmation page."""

    label: str
    icon: str
    href: str
    tone: str = "secondary"


@dataclass(frozen=True, kw_only=True)
class BulkAction:
    """Something that can be done with many rows at once, after a question.

    ``run`` gets the request and one document, does it, and writes the audit log. It raises ApiError with the reason
    where it cannot; the others go on. It returns False for a document that was so already, which is not counted as
    changed. In ``question`` and ``done`` stands {things} for the rows: "Cancel {things}?" is
    said as "Cancel 3 jobs?". Documents of which ``asks_again`` is true are changed only soon after the password was
    given again.
    """

    name: str
    label: str
    icon: str
    question: str
    text: str
    run: Callable[[Any, Any], object]
    done: str
    tone: str = "primary"  # of the button that confirms; "danger" for what takes something away
    role: Role = Role.OPERATOR
    asks_again: Callable[[Any], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Empty:
    """What an empty list says: what would be here, and what to do first."""

    title: str
    text: str
    icon: str = "inbox"
    href: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class ListSpec:
    """A list of documents. ``sort`` is the default, "-field" for newest first.

    A SearchedDocument is searched by the beginnings of its words; ``exact_fields`` are searched for exactly the text,
    so give them an index. So do for what is sorted by, together with ``_id``: ``{"fields": ["-created_at", "-_id"]}``;
    and for what is chosen: the fields of the filters, then those of the usual order.
    ``exclude`` names big fields that the list does not show. ``row_actions`` is only asked for people who may change.
    ``only`` is a condition for everything in the list. ``name`` of a row (its first column, unless given) is what a
    confirmation lists. ``things`` are its rows in words, one and many. ``live_s``: the list reads itself anew so often
    while somebody looks.
    """

    document: type[Document]
    columns: Sequence[Column]
    sort: str
    empty: Empty
    only: Mapping[str, Any] = field(default_factory=dict)
    exact_fields: Sequence[str] = ()
    search_hint: str = "Search"
    filters: Sequence[Filter] = ()
    exclude: Sequence[str] = ()
    row_actions: Callable[[Any], Sequence[Action]] | None = None
    bulk_actions: Sequence[BulkAction] = ()
    name: Callable[[Any], str] | None = None
    things: tuple[str, str] = ("entry", "entries")
    live_s: int = 0
    page_size: int = 50
    sortable: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        fields = {column.sort for column in self.columns if column.sort} | {self.sort.removeprefix("-")}
        object.__setattr__(self, "sortable", frozenset(fields))

    def count_of(self, number: int) -> str:
        """So many of its rows in words: "1 key", "1,200 keys"."""
        return f"{number:,} {self.things[number != 1]}"

    @property
    def is_searched(self) -> bool:
        return bool(self.exact_fields) or self.has_words

    @property
    def has_words(self) -> bool:
        return issubclass(self.document, SearchedDocument)

    def name_of(self, document: Any) -> str:
        """What a row is called where only its name fits."""
        return self.name(document) if self.name else str(self.columns[0].of([document])[0].value)


def choices_filter(
    name: str, label: str, choices: Sequence[tuple[str, str]], *, field: str = "", always: bool = False
) -> Filter:
    """A filter for a field that holds exactly one value. ``always``: in every document that is one of these."""
    whatever = {field or name: {"$in": [value for value, _ in choices]}} if always else {}
    return Filter(name=name, label=label, choices=choices, where=lambda value: {field or name: value}, always=whatever)


AGES = {"1h": ("Last hour", 3600), "24h": ("Last 24 hours", 86400), "7d": ("Last 7 days", 7 * 86400),
        "30d": ("Last 30 days", 30 * 86400)}  # fmt: skip


def age_filter(field: str, *, name: str = "since", label: str = "When") -> Filter:
    """A filter for how long ago a time in ``field`` is."""
    return Filter(
        name=name,
        label=label,
        choices=tuple((value, text) for value, (text, _) in AGES.items()),
        where=lambda value: {field: {"$gte": utcnow() - timedelta(seconds=AGES[value][1])}},
    )
