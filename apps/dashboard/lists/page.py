"""Reads one page of a list: search, filters, sort and cursor from the query, rows ready to be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from bson import ObjectId
from django.utils.html import format_html
from django.utils.safestring import SafeString
from mongoengine.fields import ObjectIdField, StringField
from pymongo.errors import ExecutionTimeout

from apps.core.errors import NotReady
from apps.dashboard.access import may
from apps.dashboard.lists.cells import Cell
from apps.dashboard.lists.cursor import Cursor, beyond, read_cursor
from apps.dashboard.lists.rows import MAX_COUNT, Rows, find, rows_of
from apps.dashboard.lists.spec import Action, BulkAction, Column, Filter, ListSpec
from apps.keys.documents import Role, User

MAX_SEARCH_LENGTH = 100
MAX_CHOSEN = 1_000  # for one bulk action
TICKED = "ticked"  # in the address: the ids of rows that are ticked, with spaces between them, or
EVERYTHING = "*"
TOO_LONG = "This list took too long to read. Go back, and search for other words or choose less at once."


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The head of a column. ``href`` sorts by it; ``direction`` is "ascending", "descending" or empty."""

    label: str
    numeric: bool
    href: str = ""
    direction: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    id: str
    name: str
    cells: Sequence[Cell]
    cells_html: SafeString  # the cells in their ``<td>``
    actions: Sequence[Action]
    is_ticked: bool


@dataclass(frozen=True, kw_only=True)
class ShownFilter:
    filter: Filter
    chosen: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page, ready for ``dashboard/lists/list.html``."""

    spec: ListSpec
    headings: Sequence[Heading]
    rows: Sequence[Row]
    filters: Sequence[ShownFilter]
    query: str
    sort: str
    total: int
    total_is_capped: bool
    is_narrowed: bool  # a search or a filter is on
    everything: str  # what choosing more than this page's rows means: "All 345 keys"; empty when there are no more
    is_everything: bool  # that is ticked
    has_tools: bool  # there is something to search or filter by
    has_actions: bool
    bulk_actions: Sequence[BulkAction]  # those that this person may use
    next_href: str
    previous_href: str


def read_page(
    spec: ListSpec, params: Mapping[str, str], *, can_change: bool | None = None, user: User | None = None
) -> Page:
    """Read a page. ``params`` come from the query and may be nonsense: what is not understood is left out.

    ``can_change`` says whether rows have their actions (without it: whether ``user`` is an operator); bulk actions are
    those that the role of ``user`` allows. Raises NotReady when MongoDB takes too long.
    """
    can_change = may(user, Role.OPERATOR) if can_change is None else can_change
    query, filters, sort = _asked(spec, params)
    with _in_time():
        rows = _rows_asked(spec, query, filters)
        total = rows.total
        documents, before, after = _read(rows, sort, read_cursor(params.get("cursor", "")))
    bulk_actions = [action for action in spec.bulk_actions if may(user, action.role)]
    kept = {
        "q": query,
        "sort": sort if sort != spec.sort else "",
        **{item.filter.name: item.chosen for item in filters},
    }
    has_actions = can_change and spec.row_actions is not None
    return Page(
        spec=spec,
        headings=[_heading(spec, column, sort, kept) for column in spec.columns],
        rows=_shown(spec, documents, ticked=params.get(TICKED, ""), has_actions=has_actions),
        filters=filters,
        query=query,
        sort=kept["sort"],
        total=min(total, MAX_COUNT),
        total_is_capped=total > MAX_COUNT,
        is_narrowed=bool(query or any(item.chosen for item in filters)),
        everything=_everything(spec, total, query, filters) if bulk_actions and total > len(documents) else "",
        is_everything=params.get(TICKED) == EVERYTHING,
        has_tools=bool(spec.is_searched or spec.filters),
        has_actions=has_actions,
        bulk_actions=bulk_actions,
        next_href=_href({**kept, "cursor": after.encode()}) if after else "",
        previous_href=_href({**kept, "cursor": before.encode()}) if before else "",
    )


def read_chosen(spec: ListSpec, ids: Sequence[str]) -> tuple[list[Any], bool]:
    """The documents of the list with these ids that are (still) there, in the order of the ids, and whether there were
    more ids than MAX_CHOSEN. Raises NotReady as ``read_page`` does."""
    wanted: list[Any] = list(dict.fromkeys(ids))[:MAX_CHOSEN]
    if isinstance(spec.document._fields[spec.document._meta["id_field"]], ObjectIdField):
        wanted = [ObjectId(text) for text in wanted if ObjectId.is_valid(text)]
    with _in_time():
        by_id = {document.pk: document for document in find(spec, {"$and": [{"_id": {"$in": wanted}}, spec.only]})}
    return [by_id[document_id] for document_id in wanted if document_id in by_id], len(ids) > MAX_CHOSEN


def read_everything(spec: ListSpec, params: Mapping[str, str]) -> tuple[list[Any], bool]:
    """What the search and the filters let through, on whichever page: the first MAX_CHOSEN of the list's order, and
    whether there are more. Raises NotReady as ``read_page`` does."""
    query, filters, sort = _asked(spec, params)
    order = _order(sort.removeprefix("-"), descending=sort.startswith("-"))
    with _in_time():
        found = _rows_asked(spec, query, filters).read(order, MAX_CHOSEN + 1)
    return found[:MAX_CHOSEN], len(found) > MAX_CHOSEN


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except ExecutionTimeout:
        raise NotReady(TOO_LONG, retry_after_s=2) from None


def _asked(spec: ListSpec, params: Mapping[str, str]) -> tuple[str, list[ShownFilter], str]:
    """The search, the filters and the sort of a query; what is not understood is left out."""
    query = params.get("q", "").strip()[:MAX_SEARCH_LENGTH]
    filters = [ShownFilter(filter=item, chosen=_chosen(item, params)) for item in spec.filters]
    sort = params.get("sort", "")
    return query, filters, sort if sort.removeprefix("-") in spec.sortable else spec.sort


def _everything(spec: ListSpec, total: int, query: str, filters: Sequence[ShownFilter]) -> str:
    if total > MAX_CHOSEN:
        more = "+" if total > MAX_COUNT else ""
        return f"The first {MAX_CHOSEN:,} of {min(total, MAX_COUNT):,}{more} {spec.things[1]}"
    narrowed = query or any(item.chosen for item in filters)
    return f"All {spec.count_of(total)}{' that match' if narrowed else ''}"


def _chosen(item: Filter, params: Mapping[str, str]) -> str:
    value = params.get(item.name, "")
    return value if value in {choice for choice, _ in item.choices} else ""


def _rows_asked(spec: ListSpec, query: str, filters: Sequence[ShownFilter]) -> Rows:
    conditions: list[Mapping[str, Any]] = [spec.only] if spec.only else []
    conditions += [item.filter.where(item.chosen) for item in filters if item.chosen]
    if conditions and not (query and spec.is_searched):
        conditions += [item.filter.always for item in filters if not item.chosen and item.filter.always]
    return rows_of(spec, query, conditions)


def _read(rows: Rows, sort: str, cursor: Cursor | None) -> tuple[list[Any], Cursor | None, Cursor | None]:
    """The documents of the page, and the cursors of the pages before and after it.

    A cursor beyond which nothing is left (its rows were deleted, say) gives the last page. Towards the start the first
    page is a whole one, however few rows are left before the cursor.
    """
    field, page_size = sort.removeprefix("-"), rows.spec.page_size
    backward = cursor is not None and cursor.backward
    found = _beside(rows, sort, cursor, backward=backward)
    if cursor is not None and len(found) < (page_size if backward else 1):
        cursor, backward = None, not backward
        found = _beside(rows, sort, cursor, backward=backward)
    has_more = len(found) > page_size
    documents = found[:page_size]
    if backward:
        documents.reverse()
    if not documents:
        return [], None, None
    is_before = has_more if backward else cursor is not None
    is_after = cursor is not None if backward else has_more
    first, last = documents[0], documents[-1]
    return (
        documents,
        _cursor(first, field, backward=True) if is_before else None,
        _cursor(last, field, backward=False) if is_after else None,
    )


def _beside(rows: Rows, sort: str, cursor: Cursor | None, *, backward: bool) -> list[Any]:
    """A page of documents and one more: from the cursor on, or ``backward``; without one from the start, or the end."""
    field = sort.removeprefix("-")
    descending = sort.startswith("-") != backward
    far_side = beyond(field, cursor, descending=descending) if cursor is not None else None
    return rows.read(_order(field, descending=descending), rows.spec.page_size + 1, beyond=far_side)


def _order(field: str, *, descending: bool) -> list[str]:
    order = "-" if descending else "+"
    return [f"{order}{field}"] if field == "_id" else [f"{order}{field}", f"{order}_id"]


def _cursor(document: Any, field: str, *, backward: bool) -> Cursor:
    value = document.pk if field == "_id" else getattr(document, field)
    return Cursor(value=value, id=document.pk, backward=backward)


def _heading(spec: ListSpec, column: Column, sort: str, kept: Mapping[str, str]) -> Heading:
    """Its first click sorts texts from A to Z, and numbers and times from the greatest."""
    field = column.sort
    if not field:
        return Heading(label=column.label, numeric=column.numeric)
    direction = {field: "ascending", f"-{field}": "descending"}.get(sort, "")
    is_text = isinstance(spec.document._fields.get(field), StringField)
    descending = direction == "ascending" if direction else not is_text
    href = _href({**kept, "sort": f"-{field}" if descending else field})
    return Heading(label=column.label, numeric=column.numeric, href=href, direction=direction)


def _tag(column: Column, *, is_first: bool) -> SafeString:
    """What each cell of a column begins with."""
    css_class = "first" if is_first else "num" if column.numeric else ""
    return format_html(
        '<td data-label="{}"{}>', column.label, format_html(' class="{}"', css_class) if css_class else ""
    )


def _shown(spec: ListSpec, documents: Sequence[Any], *, ticked: str, has_actions: bool) -> list[Row]:
    ids = set(ticked.split())
    tags = [_tag(column, is_first=not number) for number, column in enumerate(spec.columns)]
    by_row = zip(*(column.of(documents) for column in spec.columns), strict=True)
    return [
        Row(
            id=str(document.pk),
            name=spec.name_of(document),
            cells=cells,
            cells_html=SafeString("".join(f"{tag}{cell}</td>" for tag, cell in zip(tags, cells, strict=True))),
            actions=spec.row_actions(document) if has_actions and spec.row_actions else (),
            is_ticked=ticked == EVERYTHING or str(document.pk) in ids,
        )
        for document, cells in zip(documents, by_row, strict=True)
    ]


def _href(params: Mapping[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in params.items() if value})
