import threading
from datetime import timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from pymongo.errors import ExecutionTimeout

from apps.analytics import reports
from apps.analytics.documents import By, Grain, UsageRollup
from apps.analytics.periods import floor
from apps.analytics.reports import (
    candidates_pipeline,
    key_usage,
    step_pipeline,
    sums_pipeline,
    top_values,
    usage_report,
    user_peaks,
)
from apps.analytics.rollups import roll_up
from apps.analytics.spans import DAY_STEP_S, RANGES, make_span, named_span, read_zone
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter
from apps.keys.services import create_key
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.analytics.samples import add_events

pytestmark = pytest.mark.usefixtures("mongo")

UTC_ZONE = ZoneInfo("UTC")


@pytest.fixture
def usage():
    """Events of the last hour, of yesterday, and of ten and twenty-five days ago, summed."""
    now = utcnow()
    add_events(now - timedelta(minutes=10), 4)
    add_events(now - timedelta(minutes=5), 1, status=502, error="upstream_error", tier=None)
    add_events(now - timedelta(hours=20), 3, video_id="bbbbbbbbbbb", tier="telegram", key_prefix="wxyz9876")
    add_events(now - timedelta(days=5), 2, status=404, error="not_found", tier="external")
    add_events(now - timedelta(days=25), 7, video_id="ccccccccccc", tier=None, first_byte_s=2.0)
    roll_up(wait=False)


def stages(plan):
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan
        for value in plan.values():
            yield from stages(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from stages(value)


def explain(pipeline):
    database = UsageRollup._get_collection().database
    command = {"aggregate": "usage_rollups", "pipeline": pipeline, "cursor": {}}
    return list(stages(database.command("explain", command, verbosity="executionStats")))


class TestUsageReport:
    @pytest.mark.parametrize(("name", "requests"), [("1h", 5), ("24h", 8), ("7d", 10), ("30d", 17)])
    def test_every_range_counts_its_events_in_the_chart_and_in_the_lists(self, usage, name, requests):
        report = usage_report(named_span(name, zone=UTC_ZONE))
        assert report.totals.requests == requests
        assert sum(sums.requests for sums in report.series.sums) == requests
        assert sum(row.sums.requests for row in report.videos) == requests
        assert sum(row.sums.requests for row in report.routes) == requests
        assert len(report.series.starts) == len(report.series.sums) <= 200

    def test_the_lists_have_names_and_the_most_used_first(self, usage):
        asset_id = AssetKey("ccccccccccc", MediaKind.AUDIO, "m4a").asset_id
        Asset(id=asset_id, video_id="ccccccccccc", kind="audio", variant="m4a", state="cached", title="A song").save()
        report = usage_report(named_span("30d", zone=UTC_ZONE))
        assert [(row.value, row.label) for row in report.videos] == [
            ("abcdefghijk", ""), ("ccccccccccc", "A song"), ("bbbbbbbbbbb", ""),
        ]  # fmt: skip
        assert [(row.value, row.sums.requests) for row in report.errors] == [("not_found", 2), ("upstream_error", 1)]
        assert report.hit_ratio == pytest.approx(7 / 9)
        assert report.first_byte_p50_s < 0.01 < 1.5 < report.first_byte_p95_s

    def test_nothing_at_all_is_zeros(self):
        report = usage_report(named_span("7d", zone=UTC_ZONE))
        assert (report.totals.requests, report.hit_ratio, report.first_byte_p50_s) == (0, None, None)
        assert report.videos == []

    def test_days_are_those_of_the_zone(self, usage):
        span = named_span("30d", zone=read_zone("America/New_York"))
        assert span.step_s == DAY_STEP_S
        report = usage_report(span)
        assert sum(sums.requests for sums in report.series.sums) == 17
        local = [start.astimezone(span.zone) for start in report.series.starts]
        assert {(start.hour, start.minute) for start in local} == {(0, 0)}

    def test_a_range_of_long_ago_is_answered_from_days(self):
        old = floor(utcnow(), Grain.DAY) - timedelta(days=60)
        add_events(old + timedelta(hours=3), 6)
        roll_up(wait=False)
        UsageRollup.objects(grain="minute").delete()
        span = make_span(old + timedelta(hours=2), old + timedelta(hours=7), zone=UTC_ZONE)
        assert usage_report(span).totals.requests == 6
        assert top_values(By.VIDEO, span)[0].sums.requests == 6

    @pytest.mark.parametrize("name", RANGES)
    def test_no_question_reads_a_collection_or_a_document(self, usage, name):
        span = named_span(name, zone=UTC_ZONE)
        questions = [candidates_pipeline(by, span.segments(by), 10) for by in By]
        for values in (["a", "abcdefghijk"], None):
            questions += [sums_pipeline(by, span.segments(by), values, 10) for by in By]
        questions += [step_pipeline(span, {"by": "all", "value": ""}), step_pipeline(span, {"by": "first_byte"})]
        questions.append(step_pipeline(span, {"by": "key", "value": "abcd1234"}))
        for question in questions:
            seen = {stage["stage"] for stage in explain(question)}
            assert "IXSCAN" in seen, question
            assert not seen & {"COLLSCAN", "FETCH"}, question

    @pytest.mark.parametrize("name", RANGES)
    def test_the_most_used_come_from_the_index_in_order_and_need_no_sorting(self, usage, name):
        segments = named_span(name, zone=UTC_ZONE).segments(By.VIDEO)
        question = candidates_pipeline(By.VIDEO, segments, 10)
        assert len(question) <= 10
        assert "SORT" not in {stage["stage"] for stage in explain(question)}

    def test_what_was_asked_a_moment_ago_is_in_the_lists_of_long_ranges_though_its_day_is_not_over(self):
        now = utcnow()
        add_events(now - timedelta(minutes=2), 3)
        roll_up(now=now)
        for name in RANGES:
            report = usage_report(named_span(name, zone=UTC_ZONE))
            assert [row.sums.requests for row in report.videos] == [3]
            assert [row.sums.requests for row in report.routes] == [3]

    def test_its_questions_are_asked_at_the_same_time_in_threads_that_are_used_again(self, usage, monkeypatch):
        others, names = threading.Barrier(reports.AT_ONCE), set()

        def together(ask):
            def asked(*args, **kwargs):
                names.add(threading.current_thread().name)
                others.wait(timeout=60)
                return ask(*args, **kwargs)

            return asked

        for name in ("top_values", "_by_step", "user_peaks"):  # eight in all: twice as many as threads
            monkeypatch.setattr(reports, name, together(getattr(reports, name)))
        for _ in range(2):
            assert usage_report(named_span("24h", zone=UTC_ZONE)).totals.requests == 8
        assert len(names) == reports.AT_ONCE

    def test_a_question_that_fails_is_told_and_the_next_report_is_fine(self, usage, monkeypatch):
        failures = [ExecutionTimeout("operation exceeded time limit", 50)]

        def fail_once(span):
            if failures:
                raise failures.pop()
            return user_peaks(span)

        monkeypatch.setattr(reports, "user_peaks", fail_once)
        with pytest.raises(ExecutionTimeout):
            usage_report(named_span("24h", zone=UTC_ZONE))
        assert usage_report(named_span("24h", zone=UTC_ZONE)).totals.requests == 8

    def test_of_very_many_videos_the_most_used_are_found(self, monkeypatch):
        monkeypatch.setattr(reports, "AMONG", 3)
        now = utcnow()
        for day in (2, 3, 4):
            for number in range(20):
                add_events(now - timedelta(days=day), 1, video_id=f"tail{number}{day}")
            add_events(now - timedelta(days=day), 1 + day, video_id="steady")
        add_events(now - timedelta(days=3), 6, video_id="once")
        roll_up(wait=False)
        top = top_values(By.VIDEO, named_span("7d", zone=UTC_ZONE), limit=2)
        assert [(row.value, row.sums.requests) for row in top] == [("steady", 12), ("once", 6)]


class TestKeyUsage:
    def test_one_key_and_nobody_else(self, usage):
        made = create_key(name="Bot", owner="sam", scopes=("info",))
        found = key_usage("wxyz9876", named_span("24h", zone=UTC_ZONE))
        assert (found.totals.requests, found.totals.bytes_sent) == (3, 300)
        assert max(sums.requests for sums in found.sums) == 3
        assert key_usage(made.document.prefix, named_span("24h", zone=UTC_ZONE)).totals.requests == 0


class TestSpans:
    @pytest.mark.parametrize("name", RANGES)
    @pytest.mark.parametrize("by", [By.ALL, By.VIDEO])
    def test_the_segments_follow_each_other_without_a_gap_and_are_few(self, name, by):
        span = named_span(name, zone=UTC_ZONE)
        segments = span.segments(by)
        if by is By.ALL:
            assert segments[0].start == span.start
            assert utcnow() - timedelta(minutes=5) < segments[-1].end
        assert all(one.end == other.start for one, other in pairwise(segments))
        assert sum(len(segment.starts()) for segment in segments) <= 200

    def test_wrong_ranges_are_refused_in_words(self):
        now = utcnow()
        for problem in (
            lambda: named_span("2y", zone=UTC_ZONE),
            lambda: make_span(now, now, zone=UTC_ZONE),
            lambda: make_span(now - timedelta(days=2000), now, zone=UTC_ZONE),
            lambda: read_zone("Mars/Olympus"),
            lambda: read_zone("../../etc/passwd"),
        ):
            with pytest.raises(InvalidParameter):
                problem()
