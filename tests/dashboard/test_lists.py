import base64
import re
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest
from bson import json_util
from hypothesis import given
from hypothesis import strategies as st
from pymongo.collection import Collection

from apps.core.documents import AuditEntry
from apps.core.errors import NotReady
from apps.core.indexes import ensure_indexes
from apps.dashboard.asset_list import ASSET_LIST
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.job_list import JOB_LIST
from apps.dashboard.key_list import KEY_LIST
from apps.dashboard.lists import page as page_module
from apps.dashboard.lists import read_page
from apps.dashboard.lists import rows as rows_module
from apps.dashboard.lists.cursor import Cursor, read_cursor
from apps.dashboard.lists.page import read_chosen, read_everything
from apps.dashboard.lists.rows import rows_of
from apps.downloads.documents import JobState, MediaJob
from apps.keys.documents import ApiKey
from apps.keys.services import create_key
from tests.dashboard.samples import make_asset, make_job
from tests.scans import scans


def walk(params: dict[str, str], *, direction: str = "next_href") -> tuple[list[str], str]:
    """The asset links of all pages one after another, and the address of the last page."""
    seen, href = [], "?"
    for _ in range(20):
        page = read_page(ASSET_LIST, params, can_change=False)
        links = [row.cells[0].href for row in page.rows]
        seen = seen + links if direction == "next_href" else links + seen
        if not getattr(page, direction):
            return seen, href
        href = getattr(page, direction)
        params = dict(parse_qsl(href.removeprefix("?")))
    raise AssertionError("the pages do not end")


@pytest.fixture
def small_pages(monkeypatch, mongo):
    object.__setattr__(ASSET_LIST, "page_size", 3)
    yield
    object.__setattr__(ASSET_LIST, "page_size", 50)


@pytest.mark.parametrize("sort", ["title", "-title", "size_bytes", "-size_bytes", "last_accessed_at", "access_count"])
def test_every_document_is_on_exactly_one_page_whatever_is_missing_or_equal(small_pages, sort):
    for number in range(11):
        size = {"size_bytes": number % 3} if number % 4 else {}
        make_asset(number, title="same" if number % 2 else f"t{number}", **size)
    forward, last = walk({"sort": sort})
    assert len(forward) == len(set(forward)) == 11
    page = read_page(ASSET_LIST, dict(parse_qsl(last.removeprefix("?"))), can_change=False)
    assert page.previous_href
    backward, _ = walk(dict(parse_qsl(page.previous_href.removeprefix("?"))), direction="previous_href")
    assert backward == forward[: len(backward)]
    assert len(backward) == 9


def test_a_search_and_a_filter_stay_on_over_the_pages(small_pages):
    for number in range(10):
        make_asset(number, title=f"raga {number}")
    make_asset(90, title="other")
    seen, last = walk({"q": "raga", "kind": "audio"})
    assert len(seen) == 5
    assert "q=raga" in last
    assert "kind=audio" in last


def test_counts_what_fits_and_says_when_a_search_is_on(mongo):
    make_asset(1, title="raga")
    assert read_page(ASSET_LIST, {}, can_change=False).is_narrowed is False
    page = read_page(ASSET_LIST, {"q": "nothing"}, can_change=False)
    assert (page.total, page.is_narrowed, page.rows) == (0, True, [])


class TestSearching:
    def test_by_the_beginnings_of_words_and_by_exact_ids(self, mongo):
        asset = make_asset(1, title="Evening raga")
        make_asset(2, title="Other")
        for query in ("rag", "EVE", "video000001", str(asset.id)):
            names = [row.name for row in read_page(ASSET_LIST, {"q": query}).rows]
            assert names == ["Evening raga (audio, m4a)"], query

    @pytest.mark.parametrize("is_there", [False, True], ids=["not there", "there"])
    @pytest.mark.parametrize(
        "spec", [ASSET_LIST, AUDIT_LIST, JOB_LIST, KEY_LIST], ids=lambda spec: spec.document.__name__
    )
    def test_never_reads_a_whole_collection(self, mongo, spec, is_there):
        """Also where something is called exactly so, which is looked for in other fields."""
        ensure_indexes()
        collection = spec.document._get_collection()
        if is_there:
            collection.insert_one(dict.fromkeys(spec.exact_fields, "something"))
        rows = rows_of(spec, "something", [])
        plan = collection.find(rows.where).explain()["queryPlanner"]["winningPlan"]
        assert "COLLSCAN" not in str(plan)
        assert rows.total == (1 if is_there and spec.exact_fields else 0)


class TestBulkActions:
    def post(self, client, jobs, **values):
        ids = [job.id for job in jobs]
        return client.post("/admin/jobs", {"action": "cancel", "id": ids, **values}, follow=True)

    def test_asks_first_and_then_does_what_can_be_done(self, operator):
        jobs = [make_job(1), make_job(2), make_job(3, state=JobState.DONE)]
        asked = self.post(operator, jobs).content.decode()
        assert "Cancel 3 jobs?" in asked
        assert all(job.video_id in asked for job in jobs)
        assert MediaJob.objects(active=True).count() == 2
        answer = self.post(operator, jobs, confirmed="yes").content.decode()
        assert "2 jobs cancelled." in answer
        assert "had ended already: done" in answer
        assert MediaJob.objects(state=JobState.CANCELLED).count() == 2
        assert AuditEntry.objects(action="job.cancel").count() == 2

    def test_who_goes_back_finds_the_same_rows_ticked(self, operator):
        jobs = [make_job(number) for number in range(4)]
        chosen = {"action": "cancel", "id": [jobs[0].id, jobs[2].id]}
        asked = operator.post("/admin/jobs?active=yes&ticked=x", chosen).content.decode()
        back = re.search(r'href="([^"]*)">Go back', asked)[1].replace("&amp;", "&")
        assert back == f"/admin/jobs?active=yes&ticked={jobs[0].id}+{jobs[2].id}"
        listed = operator.get(back).content.decode()
        assert sorted(re.findall(r'value="([\w-]+)"[^>]* checked>', listed)) == sorted(chosen["id"])
        done = operator.post(back, {**chosen, "confirmed": "yes"})
        assert done["Location"] == "/admin/jobs?active=yes"

    def test_a_viewer_sees_no_boxes_and_may_not(self, viewer):
        job = make_job(1)
        assert b"data-bulk" not in viewer.get("/admin/jobs").content
        assert self.post(viewer, [job], confirmed="yes").status_code == 403
        assert MediaJob.objects(active=True).count() == 1

    def test_nonsense_changes_nothing(self, operator):
        make_job(1)
        assert operator.post("/admin/jobs", {"action": "burn", "id": "x"}).status_code == 400
        for ids in ([], ["nobody"], ["x"] * 300):
            answer = operator.post("/admin/jobs", {"action": "cancel", "id": ids, "confirmed": "yes"}, follow=True)
            assert b"Nothing was chosen" in answer.content
        assert MediaJob.objects(active=True).count() == 1


class TestCursor:
    @given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
    def test_nonsense_is_no_cursor_and_no_error(self, text):
        cursor = read_cursor(text)
        assert cursor is None or isinstance(cursor, Cursor)

    @pytest.mark.parametrize(
        "value",
        [
            '{"$oid":"zz"}', '{"$date":1e300}', '{"$date":{"$numberLong":"99999999999999999"}}', "9" * 40,
            '{"$numberDecimal":"x"}', '"\\ud800"',
        ],
    )  # fmt: skip
    def test_a_value_that_mongodb_cannot_hold_is_no_cursor(self, value):
        assert read_cursor(base64.urlsafe_b64encode(f'[{value},"id",0]'.encode()).decode()) is None

    @pytest.mark.parametrize("value", [{"$ne": 1}, [1], {"$regularExpression": {"pattern": "a", "options": ""}}])
    def test_an_operator_in_the_place_of_a_value_is_refused(self, value):
        text = base64.urlsafe_b64encode(json_util.dumps([value, "id", 0]).encode()).decode()
        assert read_cursor(text) is None

    @given(st.none() | st.integers(-(2**40), 2**40) | st.text(max_size=20) | st.booleans())
    def test_what_was_written_is_read(self, value):
        cursor = Cursor(value=value, id="some-id", backward=True)
        assert read_cursor(cursor.encode()) == cursor


def test_a_whole_large_collection_is_not_counted(mongo, monkeypatch):
    for module in (page_module, rows_module):
        monkeypatch.setattr(module, "MAX_COUNT", 3)
    for name in [*("key" for _ in range(6)), "wheelbarrow"]:  # longer than a prefix, which is found by its beginning
        create_key(name=name)
    narrowed = read_page(KEY_LIST, {"q": "wheelbarrow"})
    assert (narrowed.total, narrowed.total_is_capped) == (1, False)
    monkeypatch.setattr(Collection, "count_documents", lambda *_, **__: pytest.fail("all of them were counted"))
    whole = read_page(KEY_LIST, {})
    assert (whole.total, whole.total_is_capped) == (3, True)


def test_a_list_that_takes_too_long_to_read_says_so_and_what_to_do(mongo, monkeypatch):
    for number in range(20):
        create_key(name=f"key {number}")
    much = {"$range": [0, {"$add": [2_000_000, {"$strLenCP": "$name"}]}]}  # work for each row, far more than 1 ms
    slow = replace(KEY_LIST, only={"$expr": {"$gt": [{"$size": much}, 0]}})
    monkeypatch.setattr(rows_module, "MAX_TIME_MS", 1)

    with pytest.raises(NotReady, match="took too long to read"):
        read_page(slow, {}, can_change=False)
    with pytest.raises(NotReady, match="took too long to read"):
        read_everything(slow, {})
    with pytest.raises(NotReady, match="took too long to read"):
        read_chosen(slow, [str(key.id) for key in ApiKey.objects])
    assert all("$range" in scan for scan in scans.found())  # that condition is only there to be slow
