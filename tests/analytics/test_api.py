import csv
import io
from dataclasses import replace
from datetime import timedelta

import pytest

from apps.analytics import spans
from apps.analytics.rendering import to_csv
from apps.analytics.reports import Sums, TopRow, usage_report
from apps.analytics.rollups import roll_up
from apps.analytics.serializers import SpanRequestSerializer
from apps.analytics.spans import named_span, read_zone
from apps.core.clock import utcnow
from apps.keys.documents import Role, Scope
from apps.keys.services import create_key
from tests.analytics.samples import add_events
from tests.dashboard.conftest import _quick_hashes, log_in, make_user, server  # noqa: F401 - fixtures

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")

PATH = "/api/v1/admin/analytics"


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch):
    """Ranges that are asked for one after the other end at the same moment: a new minute would shift their steps."""
    now = utcnow()
    monkeypatch.setattr(spans, "utcnow", lambda: now)


@pytest.fixture
def usage(mongo):
    now = utcnow()
    add_events(now - timedelta(minutes=10), 3)
    add_events(now - timedelta(days=3), 2, video_id="bbbbbbbbbbb", status=404, error="=cmd", key_prefix="wxyz9876")
    roll_up(wait=False)


@pytest.fixture
def viewer(log_in):  # noqa: F811 - the fixture
    return log_in(Role.VIEWER)


class TestApi:
    def test_only_admin_keys_and_people_in_the_admin(self, client, viewer):
        for path in (PATH, f"{PATH}/live", f"{PATH}/abcd1234"):
            assert client.get(path).json()["error"] == "key_missing"
            plain = create_key(name="plain", scopes=(Scope.INFO,)).key
            assert client.get(path, headers={"X-API-Key": plain}).json()["error"] == "scope_missing"
        assert viewer.get(f"{PATH}/live").status_code == 200

    def test_a_time_without_an_offset_is_utc_whatever_the_zone(self, client):
        key = create_key(name="admin", scopes=(Scope.ADMIN,)).key
        asked = {"start": "2026-10-25T00:00:00", "end": "2026-10-26T00:00:00Z", "zone": "Europe/Berlin"}
        given = client.get(PATH, asked, headers={"X-API-Key": key}).json()
        assert (given["start"], given["end"]) == ("2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z")
        for name in ("start", "end"):
            assert "UTC" in SpanRequestSerializer().fields[name].help_text

    def test_the_same_figures_as_the_page(self, client, viewer, usage):
        key = create_key(name="admin", scopes=(Scope.ADMIN,)).key
        given = client.get(f"{PATH}?range=7d", headers={"X-API-Key": key}).json()
        assert given.pop("status") is True
        assert given["totals"]["requests"] == 5
        assert [row["value"] for row in given["videos"]] == ["abcdefghijk", "bbbbbbbbbbb"]
        assert viewer.get("/admin/analytics/data?range=7d").json() == given
        page = viewer.get("/admin/analytics?range=7d").content.decode()
        assert "abcdefghijk" in page
        assert "bbbbbbbbbbb" in page

    def test_one_key(self, client, viewer, usage):
        made = create_key(name="admin", scopes=(Scope.ADMIN,))
        add_events(utcnow() - timedelta(minutes=3), 4, key_prefix=made.document.prefix)
        roll_up(wait=False)
        headers = {"X-API-Key": made.key}
        given = client.get(f"{PATH}/{made.document.prefix}?range=1h", headers=headers).json()
        assert given["totals"]["requests"] == sum(step["requests"] for step in given["series"]) == 4
        shown = viewer.get(f"/admin/analytics/keys/{made.document.prefix}?range=1h").json()
        assert shown["series"] == given["series"]
        assert client.get(f"{PATH}/nobody00", headers=headers).json()["error"] == "not_found"

    @pytest.mark.parametrize("query", ["range=2y", "zone=Mars", "start=x", "end=2026-01-01T00:00:00Z", "top=0"])
    def test_wrong_fields_are_named(self, viewer, query):
        answer = viewer.get(f"{PATH}?{query}")
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
        assert answer.json()["parameter"] in {"range", "zone", "start", "top"}

    @pytest.mark.parametrize("day", ["0001-01-01", "1999-12-31", "9999-12-31"])
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
    def test_times_at_the_ends_of_the_calendar_are_refused_in_words(self, viewer, day, zone):
        api = viewer.get(f"{PATH}?start={day}T01:00:00Z&end={day}T23:59:59Z&zone={zone}")
        assert (api.status_code, api.json()["parameter"]) == (400, "start")
        query = f"from={day}T00:00&to={day}T23:59&zone={zone}"
        assert viewer.get(f"/admin/analytics?{query}").status_code == 422
        assert viewer.get(f"/admin/analytics/export?{query}").status_code == 400


class TestPage:
    def test_an_empty_server_says_what_to_do(self, viewer):
        page = viewer.get("/admin/analytics").content.decode()
        assert "No requests in this range" in page
        assert "create a key" in page

    def test_an_own_range_in_a_zone_and_a_wrong_one_in_words(self, viewer, usage):
        start = (utcnow() - timedelta(days=4)).strftime("%Y-%m-%dT%H:%M")
        good = viewer.get(f"/admin/analytics?from={start}&zone=Asia/Tokyo")
        assert good.status_code == 200
        assert "From (Asia/Tokyo)" in good.content.decode()
        for query, words in (
            ("from=2026-01-02T00:00&to=2026-01-01T00:00", "must lie before end"),
            ("from=soon", "must be a day and a time"),
            ("zone=Mars", "must be a time zone"),
            ("range=2y", "must be one of"),
        ):
            answer = viewer.get(f"/admin/analytics?{query}")
            assert answer.status_code == 422
            assert words in answer.content.decode()

    def test_tables_are_files_that_spreadsheets_can_open_safely(self, viewer, usage):
        answer = viewer.get("/admin/analytics/export?range=7d&table=error_codes")
        assert answer["Content-Type"].startswith("text/csv")
        assert answer["Content-Disposition"].startswith("attachment; filename=")
        (row,) = csv.DictReader(io.StringIO(answer.content.decode()))
        assert (row["value"], row["requests"]) == ("'=cmd", "2")
        series = list(csv.DictReader(io.StringIO(viewer.get("/admin/analytics/export?table=series").content.decode())))
        assert sum(int(row["requests"]) for row in series) == 3
        assert viewer.get("/admin/analytics/export?range=7d").json()["totals"]["requests"] == 5
        assert viewer.get("/admin/analytics/export?table=secrets").status_code == 400

    def test_remembers_the_zone_that_was_chosen_last_but_no_nonsense(self, viewer, usage):
        assert "From (UTC)" in viewer.get("/admin/analytics?range=24h").content.decode()
        viewer.get("/admin/analytics?zone=Asia/Kolkata")
        assert "From (Asia/Kolkata)" in viewer.get("/admin/analytics?range=24h").content.decode()
        viewer.get("/admin/analytics?zone=Mars")
        assert "From (Asia/Kolkata)" in viewer.get("/admin/analytics").content.decode()
        viewer.cookies["zone"] = "Mars"
        answer = viewer.get("/admin/analytics")
        assert (answer.status_code, b"From (UTC)" in answer.content) == (200, True)

    def test_errors_are_counted_once_not_as_failed_or_not(self, viewer, usage):
        page = viewer.get("/admin/analytics?range=7d").content.decode()
        table = page[page.index('id="t-error_codes"') :]
        assert "Failed" not in table[: table.index("</section>")]

    @pytest.mark.parametrize("blank", ["", " ", "\t", "\r", "\n", "\u00a0", "a;", "a\t", 'a"; ', "a\n"])
    @pytest.mark.parametrize(
        "formula", ["=1+1", "+1", "-1", "@SUM(1)", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20a", "\ufe631"]
    )
    def test_no_title_becomes_a_formula(self, blank, formula):
        row = TopRow(value="abcdefghijk", label=blank + formula, sums=Sums(requests=1))
        text = to_csv(replace(usage_report(named_span("1h", zone=read_zone("UTC"))), videos=[row]), "videos")
        (read,) = csv.DictReader(io.StringIO(text, newline=""))
        assert read["label"] == f"{blank}'{formula}"

    def test_nobody_who_is_not_logged_in(self, client):
        for path in ("analytics", "analytics/data", "analytics/export"):
            assert client.get(f"/admin/{path}").status_code == 302
