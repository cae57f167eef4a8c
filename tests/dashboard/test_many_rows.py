"""Bulk actions on more rows than one page shows, and paging where rows come and go meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode

import pytest
from bson import ObjectId
from pymongo.errors import AutoReconnect

from apps.core.documents import AuditEntry
from apps.dashboard import key_work
from apps.dashboard.asset_list import ASSET_LIST
from apps.dashboard.key_list import KEY_LIST
from apps.dashboard.lists import page, read_page, view
from apps.dashboard.lists.page import MAX_CHOSEN, read_chosen, read_everything
from apps.dashboard.warm_up_lists import entry_list
from apps.downloads.warm_documents import WarmUpEntry
from apps.keys.documents import ApiKey
from apps.keys.services import create_key, set_key_active
from apps.telegram_cache.documents import Part
from tests.dashboard.samples import make_asset

PAGE = 3


@pytest.fixture(autouse=True)
def _small_pages() -> Iterator[None]:
    for spec in (KEY_LIST, ASSET_LIST):
        object.__setattr__(spec, "page_size", PAGE)
    yield
    for spec in (KEY_LIST, ASSET_LIST):
        object.__setattr__(spec, "page_size", 50)


def add_keys(name: str, number: int) -> None:
    for _ in range(number):
        create_key(name=name)


def ask(client, query: str = "", **values: object):
    return client.post(f"/admin/keys{query}", {"action": "deactivate", "everything": "yes", **values})


def chosen_in(answer) -> str:
    return re.search(r'name="id" value="([^"]*)"', answer.content.decode()).group(1)


class TestEverything:
    def test_is_offered_where_there_are_more_rows_than_the_page_shows(self, operator, viewer):
        add_keys("wheelbarrow", PAGE + 2)
        add_keys("other", 1)
        assert b"All 6 keys</label>" in operator.get("/admin/keys").content
        assert b"All 5 keys that match</label>" in operator.get("/admin/keys?q=wheelbarrow").content
        assert b"everything" not in operator.get("/admin/keys?q=other").content
        assert b"everything" not in viewer.get("/admin/keys").content

    def test_asks_and_then_does_it_with_each_row_that_matched_when_it_was_asked(self, operator):
        add_keys("wheelbarrow", PAGE + 2)
        add_keys("other", 1)
        asked = ask(operator, "?q=wheelbarrow&state=on")
        assert b"Switch 5 keys off?" in asked.content
        assert ApiKey.objects(active=True).count() == PAGE + 3
        add_keys("wheelbarrow", 1)  # it came after the question
        ids = chosen_in(asked)
        done = operator.post(
            "/admin/keys?q=wheelbarrow&state=on",
            {"action": "deactivate", "confirmed": "yes", "id": ids},
            follow=True,
        )
        assert b"5 keys switched off." in done.content
        assert {str(key.id) for key in ApiKey.objects(active=False)} == set(ids.split())
        assert AuditEntry.objects(action="key.deactivate").count() == 5

    def test_is_bounded_and_says_so(self, operator, monkeypatch):
        monkeypatch.setattr(page, "MAX_CHOSEN", 4)
        add_keys("wheelbarrow", 6)
        assert b"The first 4 of 6 keys</label>" in operator.get("/admin/keys").content
        asked = ask(operator)
        assert b"Switch 4 keys off?" in asked.content
        assert b"These are the first 4 keys" in asked.content
        newest = [str(key.id) for key in ApiKey.objects.order_by("-created_at", "-id")]
        assert chosen_in(asked).split() == newest[:4]

    def test_of_nothing_changes_nothing(self, operator):
        add_keys("other", 1)
        answer = operator.post(
            "/admin/keys?q=nobody", {"action": "delete", "everything": "yes", "confirmed": "yes"}, follow=True
        )
        assert b"Nothing was chosen" in answer.content
        assert ApiKey.objects.count() == 1

    def test_is_never_done_without_the_question_that_names_each(self, operator):
        add_keys("other", PAGE + 1)
        assert b"Switch 4 keys off?" in ask(operator, confirmed="yes").content
        assert ApiKey.objects(active=True).count() == PAGE + 1

    def test_a_viewer_may_not(self, viewer):
        add_keys("other", PAGE + 1)
        assert ask(viewer, confirmed="yes").status_code == 403
        assert ApiKey.objects(active=True).count() == PAGE + 1

    def test_as_many_as_may_be_chosen_fit_into_the_confirmation(self, operator):
        add_keys("other", 1)
        ids = " ".join([str(ObjectId()) for _ in range(MAX_CHOSEN - 1)] + [str(ApiKey.objects.first().id)])
        body = urlencode({"action": "deactivate", "confirmed": "yes", "id": ids})
        answer = operator.post("/admin/keys", body, content_type="application/x-www-form-urlencoded")
        assert answer.status_code == 302
        assert ApiKey.objects(active=False).count() == 1


def test_what_takes_too_long_ends_and_says_how_many_are_left(operator, monkeypatch):
    monkeypatch.setattr(view, "RUN_S", -1.0)
    add_keys("other", 4)
    ids = [str(key.id) for key in ApiKey.objects]
    answer = operator.post("/admin/keys", {"action": "deactivate", "confirmed": "yes", "id": ids}, follow=True)
    assert b"1 key switched off." in answer.content
    assert b"It took too long: 3 keys of those you chose are as they were." in answer.content
    assert ApiKey.objects(active=False).count() == AuditEntry.objects(action="key.deactivate").count() == 1


def test_files_are_chosen_without_their_parts_and_changed_as_they_are_now(operator):
    """A thousand large files have tens of thousands of parts: reading those keeps a web process busy for seconds."""
    part = Part(index=0, offset=0, size=10, state="stored")
    asset = make_asset(1, title="t", size_bytes=10, parts=[part])
    (chosen,), _ = read_everything(ASSET_LIST, {})
    assert chosen.parts == []
    answer = operator.post("/admin/cache", {"action": "verify", "confirmed": "yes", "id": asset.id}, follow=True)
    assert b"Verify: 1 file." in answer.content
    assert AuditEntry.objects.get(action="asset.verify").target_id == asset.id


def test_rows_outside_the_list_cannot_be_chosen(mongo):
    for warm_up in ("one", "other"):
        WarmUpEntry(id=f"{warm_up}-0", warm_up_id=warm_up, number=0, link="x").save(force_insert=True)
    entries, _ = read_chosen(entry_list("one"), ["other-0", "one-0", "one-0"])
    assert [entry.id for entry in entries] == ["one-0"]


class TestPaging:
    def walk(self, params: dict[str, str], direction: str = "next_href") -> dict[str, str]:
        """The query of the page next to the one of ``params``."""
        return dict(parse_qsl(getattr(read_page(ASSET_LIST, params), direction).removeprefix("?")))

    def titles(self, params: dict[str, str]) -> list[str]:
        return [row.name.partition(" ")[0] for row in read_page(ASSET_LIST, params).rows]

    def fill(self, number: int) -> None:
        for one in range(number):
            make_asset(one, title=f"t{one}")

    def test_a_page_whose_rows_are_gone_is_the_last_one_that_is_left(self, mongo):
        self.fill(2 * PAGE + 1)
        last = self.walk(self.walk({"sort": "title"}))
        assert self.titles(last) == ["t6"]
        ASSET_LIST.document.objects(title="t6").delete()
        assert self.titles(last) == ["t3", "t4", "t5"]
        assert self.titles(self.walk(last, "previous_href")) == ["t0", "t1", "t2"]
        ASSET_LIST.document.objects.delete()
        assert read_page(ASSET_LIST, last).rows == []

    def test_the_first_page_is_a_whole_one_on_the_way_back(self, mongo):
        self.fill(3 * PAGE)
        second = self.walk({"sort": "title"})
        back = self.walk(second, "previous_href")
        ASSET_LIST.document.objects(title="t1").delete()
        assert self.titles(back) == ["t0", "t2", "t3"]
        assert read_page(ASSET_LIST, back).previous_href == ""


@pytest.mark.parametrize(("label", "first"), [("Title", "sort=title"), ("Size", "sort=-size_bytes")])
def test_the_first_click_on_a_column_sorts_it_as_people_read_it(mongo, label, first):
    headings = {heading.label: heading for heading in read_page(ASSET_LIST, {}).headings}
    assert headings[label].href == f"?{first}"
    again = dict(parse_qsl(first))
    headings = {heading.label: heading for heading in read_page(ASSET_LIST, again).headings}
    assert headings[label].href != f"?{first}"


def test_a_database_that_goes_away_in_between_is_told_with_how_many_were_done(operator, monkeypatch):
    add_keys("other", 4)
    ids = [str(key.id) for key in ApiKey.objects]
    calls = iter([set_key_active, set_key_active, _is_away])
    monkeypatch.setattr(key_work, "set_key_active", lambda *given, **named: next(calls)(*given, **named))
    answer = operator.post("/admin/keys", {"action": "deactivate", "confirmed": "yes", "id": ids}, follow=True)
    assert b"2 keys switched off." in answer.content
    assert b"it is not known whether this was done." in answer.content
    assert b"did not answer any more: 1 key of those you chose is as it was." in answer.content


def _is_away(*_: object, **__: object) -> None:
    raise AutoReconnect("connection closed")
