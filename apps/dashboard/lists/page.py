"""Reads one page of a list: search, filters, sort and cursor from the query, rows ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from apps.core.search import words_where
from apps.dashboard.access import may
from apps.dashboard.lists.cursor import Cursor, beyond, read_cursor
from apps.dashboard.lists.spec import Action, BulkAction, Cell, Filter, ListSpec
from apps.keys.documents import Role, User

MAX_SEARCH_LENGTH = 100
MAX_COUNT = 10_000
MAX_TIME_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The head of a column. ``href`` sorts by it; ``direction`` is "ascending", "descending" or empty."""

    label: str
    numeric: bool
    href: str = ""
    direction: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownCell:
    label: str
    numeric: bool
    cell: Cell
    template: str


@dataclass(frozen=True, kw_only=True)
class Row:
    id: str
    name: str
    cells: Sequence[ShownCell]
    actions: Sequence[Action]


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
    those that the role of ``user`` allows.
    """
    can_change = may(user, Role.OPERATOR) if can_change is None else can_change
    query = params.get("q", "").strip()[:MAX_SEARCH_LENGTH]
    filters = [ShownFilter(filter=item, chosen=_chosen(item, params)) for item in spec.filters]
    sort = params.get("sort", "")
    sort = sort if sort.removeprefix("-") in spec.sortable else spec.sort
    where = _where(spec, query, filters)
    documents, before, after = _read(spec, where, sort, read_cursor(params.get("cursor", "")))
    total = _total(spec, where)
    kept = {
        "q": query,
        "sort": sort if sort != spec.sort else "",
        **{item.filter.name: item.chosen for item in filters},
    }
    has_actions = can_change and spec.row_actions is not None
    return Page(
        spec=spec,
        headings=[_heading(column.label, column.numeric, column.sort, sort, kept) for column in spec.columns],
        rows=[_row(spec, document, has_actions=has_actions) for document in documents],
        filters=filters,
        query=query,
        sort=kept["sort"],
        total=min(total, MAX_COUNT),
        total_is_capped=total > MAX_COUNT,
        is_narrowed=bool(query or any(item.chosen for item in filters)),
        has_tools=bool(spec.is_searched or spec.filters),
        has_actions=has_actions,
        bulk_actions=[action for action in spec.bulk_actions if may(user, action.role)],
        next_href=_href({**kept, "cursor": after.encode()}) if after else "",
        previous_href=_href({**kept, "cursor": before.encode()}) if before else "",
    )


def _total(spec: ListSpec, where: dict[str, Any]) -> int:
    """How many there are; more than MAX_COUNT are not counted, and of a whole large collection MongoDB knows it."""
    collection = spec.document._get_collection()
    if not where and (estimated := collection.estimated_document_count(maxTimeMS=MAX_TIME_MS)) > 2 * MAX_COUNT:
        return int(estimated)  # off by a little after a crash, and far from the number up to which all are counted
    return int(collection.count_documents(where, limit=MAX_COUNT + 1, maxTimeMS=MAX_TIME_MS))


def _chosen(item: Filter, params: Mapping[str, str]) -> str:
    value = params.get(item.name, "")
    return value if value in {choice for choice, _ in item.choices} else ""


def _where(spec: ListSpec, query: str, filters: Sequence[ShownFilter]) -> dict[str, Any]:
    conditions: list[Mapping[str, Any]] = [spec.only] if spec.only else []
    conditions += [item.filter.where(item.chosen) for item in filters if item.chosen]
    if query and spec.is_searched:
        words = [words_where(query)] if spec.has_words else []
        conditions.append({"$or": words + [{name: query} for name in spec.exact_fields]})
    return {"$and": conditions} if conditions else {}


def _read(
    spec: ListSpec, where: dict[str, Any], sort: str, cursor: Cursor | None
) -> tuple[list[Any], Cursor | None, Cursor | None]:
    """The documents of the page, and the cursors of the pages before and after it."""
    field = sort.removeprefix("-")
    backward = cursor is not None and cursor.backward
    descending = sort.startswith("-") != backward
    if cursor is not None:
        where = (
            {"$and": [where, beyond(field, cursor, descending=descending)]}
            if where
            else beyond(field, cursor, descending=descending)
        )
    order = "-" if descending else "+"
    by = [f"{order}{field}"] if field == "_id" else [f"{order}{field}", f"{order}_id"]
    found = list(
        spec.document.objects(__raw__=where)
        .exclude(*spec.exclude)
        .order_by(*by)
        .limit(spec.page_size + 1)
        .max_time_ms(MAX_TIME_MS)
    )
    has_more = len(found) > spec.page_size
    documents = found[: spec.page_size]
    if backward:
        documents.reverse()
    if not documents:
        return [], None, None
    is_before = has_more if backward else cursor is not None
    is_after = True if backward else has_more
    first, last = documents[0], documents[-1]
    return (
        documents,
        _cursor(first, field, backward=True) if is_before else None,
        _cursor(last, field, backward=False) if is_after else None,
    )


def _cursor(document: Any, field: str, *, backward: bool) -> Cursor:
    value = document.pk if field == "_id" else getattr(document, field)
    return Cursor(value=value, id=document.pk, backward=backward)


def _heading(label: str, numeric: bool, field: str, sort: str, kept: Mapping[str, str]) -> Heading:
    if not field:
        return Heading(label=label, numeric=numeric)
    direction = {field: "ascending", f"-{field}": "descending"}.get(sort, "")
    wanted = field if direction == "descending" else f"-{field}"
    return Heading(label=label, numeric=numeric, href=_href({**kept, "sort": wanted}), direction=direction)


def _row(spec: ListSpec, document: Any, *, has_actions: bool) -> Row:
    cells = []
    for column in spec.columns:
        cell = column.cell(document)
        cells.append(
            ShownCell(
                label=column.label,
                numeric=column.numeric,
                cell=cell,
                template=f"dashboard/lists/cells/{cell.kind}.html",
            )
        )
    actions = spec.row_actions(document) if has_actions and spec.row_actions else ()
    return Row(id=str(document.pk), name=spec.name_of(document), cells=cells, actions=actions)


def _href(params: Mapping[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in params.items() if value})
