"""Reads the rows of a list from MongoDB, by the index that finds them soonest.

Left alone, MongoDB goes on with what was best for an earlier search of the same form. Rows of a rare word are best
found by the word and then sorted; done so with a word that is everywhere, all rows are read. So it is counted first in
how many rows the words are, up to MAX_COUNT, and that says which index is read (a "hint": such plans are not kept).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pymongo.errors import ExecutionTimeout

from apps.core.search import words_where
from apps.dashboard.lists.spec import ListSpec

MAX_COUNT = 10_000
MAX_TIME_MS = 5_000
ALONG_MS = 10  # for each row that is wanted, until the rows are taken to lie together, somewhere else in the order

Index = Sequence[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a list that fit ``where``, which is every condition.

    ``words``: those of them that are about words, one for each, where all of these have to hold. Raises
    ExecutionTimeout when MongoDB takes longer than MAX_TIME_MS.
    """

    spec: ListSpec
    where: Mapping[str, Any]
    words: Sequence[Mapping[str, Any]] = ()
    is_search: bool = False

    @cached_property
    def total(self) -> int:
        """How many there are; more than MAX_COUNT are not counted, and of a whole large collection MongoDB knows it."""
        collection = self.spec.document._get_collection()
        if not self.where and (estimated := collection.estimated_document_count(maxTimeMS=MAX_TIME_MS)) > 2 * MAX_COUNT:
            return int(estimated)  # off by a little after a crash, and far from the number up to which all are counted
        return self._count(self.where, self._index_of_words if self._is_by_words else None)

    def read(self, order: Sequence[str], limit: int, *, beyond: Mapping[str, Any] | None = None) -> list[Any]:
        """The first ones in this order ("+field" or "-field" each) for which ``beyond`` holds too."""
        conditions = [part for part in (self.where, beyond) if part]
        found = find(self.spec, {"$and": conditions} if conditions else {}).order_by(*order).limit(limit)
        is_common = self.is_search and self.total > MAX_COUNT
        if is_common and (index := self._index_of(order)):
            with suppress(ExecutionTimeout):
                return list(found.hint(index).max_time_ms(min(ALONG_MS * limit, MAX_TIME_MS // 2)))
        return list(found.hint(self._index_of_words) if is_common or self._is_by_words else found)

    @cached_property
    def _is_by_words(self) -> bool:
        """Whether nothing finds the rows sooner than a word: one of them is rare, or nothing else is asked for."""
        if not self.words:
            return False
        if self.where == {"$and": self.words}:
            return True
        return any(self._count(word, self._index_of_words) <= MAX_COUNT for word in self.words)

    def _count(self, where: Mapping[str, Any], index: Index | None) -> int:
        hint = {"hint": index} if index else {}
        collection = self.spec.document._get_collection()
        return int(collection.count_documents(where, limit=MAX_COUNT + 1, maxTimeMS=MAX_TIME_MS, **hint))

    @cached_property
    def _index_of_words(self) -> Index | None:
        return next((index for index in self._indexes if self.words and index[0][0] == "words"), None)

    def _index_of(self, order: Sequence[str]) -> Index | None:
        """The index for an order, which is read from either end."""
        forward = [(field[1:], 1 if field[0] == "+" else -1) for field in order]
        backward = [(field, -direction) for field, direction in forward]
        return next((index for index in self._indexes if index in (forward, backward)), None)

    @cached_property
    def _indexes(self) -> list[Index]:
        """Those that are there, so that nothing fails where somebody has dropped one, and that have every row."""
        indexes = self.spec.document._get_collection().index_information().values()
        return [index["key"] for index in indexes if not index.keys() & {"sparse", "partialFilterExpression"}]


def rows_of(spec: ListSpec, query: str, conditions: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows that fit the conditions, and the search where there is one."""
    if not (query and spec.is_searched):
        return Rows(spec=spec, where={"$and": [*conditions]} if conditions else {})
    exact = [{name: query} for name in spec.exact_fields]
    if not spec.has_words:
        return Rows(spec=spec, where={"$and": [*conditions, {"$or": exact}]})
    words = words_where(query)
    if exact and _is_any(spec, {"$or": exact}):  # seldom; without it one index finds everything
        return Rows(spec=spec, where={"$and": [*conditions, {"$or": [{"$and": words}, *exact]}]}, is_search=True)
    return Rows(spec=spec, where={"$and": [*conditions, *words]}, words=words, is_search=True)


def find(spec: ListSpec, where: Mapping[str, Any]) -> Any:
    """A query set of the list's documents."""
    return spec.document.objects(__raw__=where).exclude(*spec.exclude).max_time_ms(MAX_TIME_MS)


def _is_any(spec: ListSpec, where: Mapping[str, Any]) -> bool:
    return spec.document._get_collection().find_one(where, {"_id": 1}, max_time_ms=MAX_TIME_MS) is not None
