from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import available_timezones

import pytest

from apps.analytics.documents import By, Grain, UsageRollup
from apps.analytics.reports import key_usage, usage_report
from apps.analytics.spans import DAY_STEP_S, make_span, read_zone, zone_names
from apps.core.errors import InvalidParameter
from apps.dashboard.views.analytics import _when

pytestmark = pytest.mark.usefixtures("mongo")

NEW_YORK = "America/New_York"
BEGIN, END = datetime(2026, 2, 20, tzinfo=UTC), datetime(2026, 4, 27, tzinfo=UTC)  # clocks change, both ways
AFTER = datetime(2026, 4, 28, tzinfo=UTC)
HOURS = (END - BEGIN) // timedelta(hours=1)


def local(text, zone=NEW_YORK):
    return datetime.fromisoformat(text).replace(tzinfo=read_zone(zone))


@pytest.fixture
def one_an_hour():
    """One request in each hour from BEGIN to END, as sums."""
    starts = [BEGIN + timedelta(hours=number) for number in range(HOURS)]
    shape = {"grain": Grain.HOUR.value, "requests": 1, "errors": 0, "refused": 0, "bytes_sent": 1}
    shape |= {"expires_at": datetime(2100, 1, 1, tzinfo=UTC)}
    UsageRollup._get_collection().insert_many(
        [
            {
                "_id": f"hour:{by.value}:{start:%Y%m%d%H}:{value}",
                "by": by.value,
                "value": value,
                "start": start,
                **shape,
            }
            for by, value in ((By.ALL, ""), (By.KEY, "abcd1234"), (By.FIRST_BYTE, "7"))
            for start in starts
        ]
    )


class TestDays:
    @pytest.mark.parametrize(
        "zone",
        ["America/Coyhaique", "America/Asuncion", "America/Havana", "Africa/Cairo", "Asia/Kolkata", NEW_YORK],
    )
    def test_hold_what_was_asked_in_them_also_where_mongodb_knows_other_rules(self, one_an_hour, zone):
        report = usage_report(make_span(BEGIN, END, zone=read_zone(zone), now=AFTER))
        assert report.totals.requests == HOURS
        assert len(report.series.starts) == len(report.series.sums) == len(report.series.first_byte_p50_s)
        assert None not in report.series.first_byte_p50_s

    def test_of_every_zone_that_can_be_chosen_are_those_of_its_clocks(self, one_an_hour):
        spans = {}
        for name in zone_names():
            span = make_span(BEGIN, END, zone=read_zone(name), now=AFTER)
            spans.setdefault(tuple(span.steps()), span)
        assert len(spans) > 40
        for starts, span in spans.items():
            assert span.step_s == DAY_STEP_S
            usage = key_usage("abcd1234", span)
            ends = [*starts[1:], END]
            for start, end, sums in zip(starts, ends, usage.sums, strict=True):
                begun = [hour for hour in range(HOURS) if start <= BEGIN + timedelta(hours=hour) < end]
                assert sums.requests == len(begun), (span.zone.key, start)

    def test_are_an_hour_shorter_and_longer_when_the_clocks_change(self):
        span = make_span(local("2026-03-01T00:00"), local("2026-11-10T00:00"), zone=read_zone(NEW_YORK), now=AFTER)
        lengths = {day.astimezone(span.zone).date().isoformat(): after - day for day, after in pairwise(span.steps())}
        assert lengths.pop("2026-03-08") == timedelta(hours=23)
        assert lengths.pop("2026-11-01") == timedelta(hours=25)
        assert set(lengths.values()) == {timedelta(hours=24)}


def test_an_hour_that_the_clocks_showed_twice_has_its_offset_beside_it():
    zone = read_zone(NEW_YORK)
    shown = [_when(datetime(2026, 11, 1, hour, tzinfo=UTC).astimezone(zone), "%d %b %H:%M") for hour in (4, 5, 6, 7)]
    assert shown == ["01 Nov 00:00", "01 Nov 01:00 EDT", "01 Nov 01:00 EST", "01 Nov 02:00"]


class TestOwnRange:
    def test_is_as_long_as_it_really_was(self):
        zone = read_zone(NEW_YORK)
        now = datetime(2026, 3, 9, tzinfo=UTC)
        span = make_span(local("2026-03-08T00:00"), local("2026-03-08T07:00"), zone=zone, now=now)
        assert span.end - span.start == timedelta(hours=6)
        assert span.step_s == 300
        now = datetime(2026, 11, 3, tzinfo=UTC)
        span = make_span(local("2026-10-31T12:00"), local("2026-11-02T12:00"), zone=zone, now=now)
        assert span.end - span.start == timedelta(hours=49)
        assert span.step_s == 3600

    def test_that_ends_before_it_begins_because_the_clocks_were_put_forward_is_refused(self):
        with pytest.raises(InvalidParameter, match="before end"):  # 02:30 did not exist: 03:30
            make_span(local("2026-03-08T02:30"), local("2026-03-08T03:15"), zone=read_zone(NEW_YORK), now=AFTER)

    def test_that_lies_in_the_future_has_nothing(self):
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        for length in (timedelta(hours=1), timedelta(days=3), timedelta(days=30)):
            report = usage_report(make_span(tomorrow, tomorrow + length, zone=read_zone("UTC")))
            assert (report.totals.requests, report.videos, report.routes) == (0, [], [])


class TestZones:
    def test_those_that_name_no_place_cannot_be_chosen(self):
        assert {"UTC", "Asia/Kolkata", NEW_YORK} <= set(zone_names()) < available_timezones()
        for name in ("localtime", "Factory", "Mars/Olympus", "../../etc/passwd", ""):
            assert name not in zone_names()
            with pytest.raises(InvalidParameter):
                read_zone(name)
