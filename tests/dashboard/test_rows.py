"""Searches in a list of very many rows look at about as much as they show, whatever was searched for before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from apps.core.indexes import ensure_indexes
from apps.dashboard.admin_list import ADMIN_LIST
from apps.dashboard.asset_list import ASSET_LIST
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.key_list import KEY_LIST
from apps.dashboard.lists import Page, read_page
from apps.dashboard.lists import rows as rows_module
from apps.dashboard.lists.cursor import Cursor
from apps.dashboard.lists.page import _order, read_everything
from apps.dashboard.lists.rows import MAX_COUNT, Rows
from apps.dashboard.user_list import USER_LIST
from apps.telegram_cache.documents import Asset
from tests.emptying import empty_hot_store, empty_mongo
from tests.profiles import profiled

MANY = 24_000
RARE = 150  # files with the word "rare", all among the first that were stored
OLD = 11_000  # files with the word "old": those that nobody has used for the longest
PAGE = 50
FEW = 4 * PAGE  # documents, for a page of a word that every second file has at least
NOW = datetime.now(UTC).replace(microsecond=0)
ORDERS = [f"{sign}{field}" for field in sorted(ASSET_LIST.sortable) for sign in ("", "-")]


def shuffled(number: int, by: int) -> int:
    """Another place for each of MANY, which goes with no other order."""
    return number * by % MANY


def make_file(number: int) -> dict[str, Any]:
    unused = shuffled(number, 7919)
    words = [
        "common",
        "half" if number % 2 else "other",
        *["rare"] * (number < RARE),
        *["old"] * (unused >= MANY - OLD),
    ]
    return {
        "_id": f"{shuffled(number, 5003):024}",
        "video_id": f"v{number:010}",
        "kind": "audio" if number % 3 else "video",
        "variant": "m4a",
        "state": "failed" if number % 10 == 7 else "cached",
        "title": f"{shuffled(number, 6007):05} common",
        "size_bytes": shuffled(number, 9001) // 2,  # two have each size
        "access_count": shuffled(number, 3001) // 100,
        **({} if unused == MANY - 1 else {"last_accessed_at": NOW - timedelta(minutes=unused)}),
        "words": words,
    }


FILES = [make_file(number) for number in range(MANY)]


@pytest.fixture(scope="module", autouse=True)
def _files(_indexes: None) -> Iterator[None]:
    empty_mongo()
    empty_hot_store()
    Asset._get_collection().insert_many(FILES, ordered=True)
    yield
    empty_mongo()


@pytest.fixture(autouse=True)
def _nothing_is_kept_and_no_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB begins without plans of other tests; a page may take as long as it likes."""
    Asset._get_db().command("planCacheClear", Asset._get_collection_name())
    monkeypatch.setattr(rows_module, "MAX_TIME_MS", 60_000)
    monkeypatch.setattr(rows_module, "ALONG_MS", 60_000)


def search(query: str, **params: str) -> Page:
    return read_page(ASSET_LIST, {"q": query, **params})


def search_often(query: str, **params: str) -> None:
    """Until MongoDB keeps the plan."""
    for _ in range(3):
        search(query, **params)


def ids(page: Page) -> list[str]:
    return [row.id for row in page.rows]


def expected(word: str, sort: str, **fields: str) -> list[str]:
    """The ids of all that fit, in order. What has no time comes first in ascending order."""
    name = sort.removeprefix("-")
    fitting = [row for row in FILES if word in row["words"] and fields.items() <= row.items()]
    fitting.sort(key=lambda row: (name in row, row.get(name), row["_id"]), reverse=sort.startswith("-"))
    return [row["_id"] for row in fitting]


def beside(page: Page, direction: str) -> dict[str, str]:
    return dict(parse_qsl(getattr(page, direction).removeprefix("?")))


def looked_at(work: Callable[[], object]) -> tuple[int, int]:
    """How many documents and how many index keys MongoDB read."""
    asked = profiled(work)
    return sum(row.get("docsExamined", 0) for row in asked), sum(row.get("keysExamined", 0) for row in asked)


class TestAfterARareWord:
    @pytest.mark.parametrize("sort", ORDERS)
    def test_a_common_one_reads_a_page_in_every_order(self, sort):
        search_often("rare", sort=sort)
        for word in ("common", "half"):
            documents, keys = looked_at(lambda word=word: search(word, sort=sort))
            assert documents <= FEW
            assert keys <= MAX_COUNT + 1 + FEW

    @pytest.mark.parametrize("chosen", [{"kind": "audio"}, {"state": "cached"}, {"used": "30d"}, {"tier": "cold"}])
    def test_a_common_one_of_those_that_are_chosen_reads_a_page_beside_the_count(self, chosen):
        search_often("rare", **chosen)
        asked = profiled(lambda: search("common", **chosen))
        assert sum(row.get("docsExamined", 0) for row in asked if row["op"] == "query") <= FEW

    def test_everything_that_is_chosen_is_found_on_the_way(self):
        read_everything(ASSET_LIST, {"q": "rare"})
        read_everything(ASSET_LIST, {"q": "rare"})
        documents, _ = looked_at(lambda: read_everything(ASSET_LIST, {"q": "half"}))
        assert documents <= 3_000  # for 1,001 of every second file


class TestAfterACommonWord:
    @pytest.mark.parametrize("chosen", [{}, {"kind": "audio"}, {"state": "cached"}, {"sort": "title"}])
    def test_a_rare_one_reads_its_own_rows(self, chosen):
        search_often("common", **chosen)
        documents, keys = looked_at(lambda: search("rare", **chosen))
        assert documents <= 2 * RARE  # once for the count where something is chosen
        assert keys <= 3 * (RARE + 1)


@pytest.mark.parametrize(("before", "then"), [("rare half", "half rare"), ("half rare", "rare half")])
@pytest.mark.parametrize("chosen", [{}, {"kind": "audio"}])
def test_of_two_words_the_rare_one_is_read_wherever_it_stands(before, then, chosen):
    search_often(before, **chosen)
    for query in (before, then):
        documents, keys = looked_at(lambda query=query: search(query, **chosen))
        assert documents <= 3 * RARE
        assert keys <= MAX_COUNT + 1 + 3 * (RARE + 1)


class TestAnswers:
    """The same rows in the same order as ever, on every page."""

    @pytest.mark.parametrize("sort", ORDERS)
    @pytest.mark.parametrize("word", ["common", "half", "rare"])
    def test_of_the_first_two_pages_and_back(self, word, sort):
        wanted = expected(word, sort)
        first = search(word, sort=sort)
        second = read_page(ASSET_LIST, beside(first, "next_href"))
        back = read_page(ASSET_LIST, beside(second, "previous_href"))
        assert ids(first) + ids(second) == wanted[: 2 * PAGE]
        assert ids(back) == ids(first)
        assert (first.previous_href, back.previous_href) == ("", "")
        assert (first.total, first.total_is_capped) == (min(len(wanted), MAX_COUNT), len(wanted) > MAX_COUNT)

    @pytest.mark.parametrize("sort", ORDERS)
    def test_of_a_page_in_the_middle_and_of_the_last_one(self, sort):
        wanted = expected("half", sort, kind="audio")
        rows = {row["_id"]: row for row in FILES}
        for start in (len(wanted) // 2, len(wanted) - 20):
            before = rows[wanted[start - 1]]
            value = before.get(sort.removeprefix("-"))
            cursor = Cursor(value=value, id=before["_id"], backward=False).encode()
            page = search("half", sort=sort, kind="audio", cursor=cursor)
            assert ids(page) == wanted[start : start + PAGE]
            assert ids(read_page(ASSET_LIST, beside(page, "previous_href"))) == wanted[start - PAGE : start]
            assert bool(page.next_href) == (start + PAGE < len(wanted))

    @pytest.mark.parametrize("sort", ["-last_accessed_at", "title"])
    def test_of_a_page_in_the_middle_cost_no_more_than_the_first(self, sort):
        search_often("rare", sort=sort)
        middle = expected("common", sort)[MANY // 2]
        before = next(row for row in FILES if row["_id"] == middle)
        cursor = Cursor(value=before[sort.removeprefix("-")], id=before["_id"], backward=False).encode()
        documents, keys = looked_at(lambda: search("common", sort=sort, cursor=cursor))
        assert documents <= FEW
        assert keys <= MAX_COUNT + 1 + FEW

    def test_of_what_is_called_exactly_so_and_has_other_words(self):
        exact = FILES[5]
        assert ids(search(exact["_id"])) == [exact["_id"]]
        assert ids(search(exact["video_id"])) == [exact["_id"]]
        assert ids(search("nobody has this")) == ids(search("...")) == []


class TestWhatLiesTogether:
    """Many rows have the word, and the order has all of them at its end."""

    def test_is_found_by_the_word_when_walking_along_the_order_takes_too_long(self, monkeypatch):
        monkeypatch.setattr(rows_module, "ALONG_MS", 1)  # so it has 2 ms to pass over 13,000 documents
        pages = []
        asked = profiled(lambda: pages.append(read_page(replace(ASSET_LIST, page_size=1), {"q": "old"})))
        assert ids(pages[0]) == expected("old", "-last_accessed_at")[:1]
        assert pages[0].total == MAX_COUNT
        along, by_word = [row for row in asked if row["op"] == "query" and row["command"].get("sort")]
        assert along["errName"] == "MaxTimeMSExpired"
        assert (by_word["planSummary"], by_word["docsExamined"]) == ("IXSCAN { words: 1 }", OLD)


def test_a_list_answers_without_the_index_of_its_order():
    collection = Asset._get_collection()
    collection.drop_index("size_bytes_-1__id_-1")
    try:
        assert ids(search("common", sort="-size_bytes")) == expected("common", "-size_bytes")[:PAGE]
    finally:
        ensure_indexes()


@pytest.mark.parametrize(
    "spec", [ADMIN_LIST, ASSET_LIST, AUDIT_LIST, KEY_LIST, USER_LIST], ids=lambda spec: spec.things[1]
)
def test_every_order_of_a_list_with_words_has_its_index_and_so_have_the_words(spec):
    rows = Rows(spec=spec, where={}, words=[{}])
    assert rows._index_of_words
    for field in spec.sortable:
        assert rows._index_of(_order(field, descending=False)) == rows._index_of(_order(field, descending=True))
        assert rows._index_of(_order(field, descending=False))
