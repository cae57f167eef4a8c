"""What a list of documents looks like, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mongoengine import Document


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in one place of the table. ``kind`` names the partial ``dashboard/lists/cells/<kind>.html``."""

    kind: str = "text"
    value: Any = None
    href: str = ""
    tone: str = "secondary"  # for badges: success, warning, danger, info, secondary
    note: str = ""  # a second, quieter line


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. ``cell`` turns a document into what is shown; ``sort`` is the field that a click on it sorts by."""

    label: str
    cell: Callable[[Any], Cell]
    sort: str = ""
    numeric: bool = False


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A choice above the list. ``where`` turns the chosen value into a MongoDB condition."""

    name: str
    label: str
    choices: Sequence[tuple[str, str]]
    where: Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that can be done with one row; the link leads to its confirmation page."""

    label: str
    icon: str
    href: str
    tone: str = "secondary"


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

    ``search_fields`` are searched for the words anywhere in the text; ``exact_fields`` for exactly the text.
    ``exclude`` names big fields that the list does not show. ``row_actions`` is only asked for people who may change.
    """

    document: type[Document]
    columns: Sequence[Column]
    sort: str
    empty: Empty
    search_fields: Sequence[str] = ()
    exact_fields: Sequence[str] = ()
    search_hint: str = "Search"
    filters: Sequence[Filter] = ()
    exclude: Sequence[str] = ()
    row_actions: Callable[[Any], Sequence[Action]] | None = None
    page_size: int = 50
    sortable: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        fields = {column.sort for column in self.columns if column.sort} | {self.sort.removeprefix("-")}
        object.__setattr__(self, "sortable", frozenset(fields))


def choices_filter(name: str, label: str, choices: Sequence[tuple[str, str]], *, field: str = "") -> Filter:
    """A filter for a field that holds exactly one of the values."""
    return Filter(name=name, label=label, choices=choices, where=lambda value: {field or name: value})
