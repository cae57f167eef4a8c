import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from io import StringIO
from itertools import product
from random import Random

import mongoengine
import pytest
from django.core.management import CommandError, call_command
from pymongo.synchronous.cursor import Cursor

from apps.analytics import rollup_marks, summing
from apps.analytics.documents import By, Grain, RollupLease, RollupMark, UsageEvent, UsageRollup, kept_for
from apps.analytics.periods import ceil, floor
from apps.analytics.rollups import rebuild, roll_up
from apps.core.clock import utcnow
from apps.core.errors import Conflict
from tests.analytics.samples import add_events

pytestmark = pytest.mark.usefixtures("mongo")


def sums(grain, by):
    return {row.value: row.requests for row in UsageRollup.objects(grain=grain.value, by=by.value)}


@pytest.fixture
def hour():
    return floor(utcnow(), Grain.HOUR) - timedelta(hours=2)


class TestRollUp:
    def test_every_event_is_in_the_sums_of_its_minute_hour_and_day_by_each_of_its_values(self, hour):
        add_events(hour, 3)
        add_events(hour + timedelta(minutes=1), 2, key_prefix="wxyz9876", status=404, error="not_found", tier=None)
        add_events(hour + timedelta(minutes=1), 1, key_prefix=None, status=503, video_id=None, first_byte_s=None)
        roll_up(wait=False)
        assert sorted(row.requests for row in UsageRollup.objects(grain="minute", by="all")) == [3, 3]
        for grain in (Grain.HOUR, Grain.DAY):
            whole = UsageRollup.objects.get(grain=grain.value, by="all")
            assert (whole.requests, whole.errors, whole.refused, whole.bytes_sent) == (6, 1, 2, 600)
            assert whole.start == floor(hour, grain)
            assert sums(grain, By.KEY) == {"abcd1234": 3, "wxyz9876": 2}
            assert sums(grain, By.ROUTE) == {"/api/v1/audio": 6}
            assert sums(grain, By.TIER) == {"hot": 4}
            assert sums(grain, By.VIDEO) == {"abcdefghijk": 5}
            assert sums(grain, By.ERROR) == {"not_found": 2, "503": 1}
            assert sums(grain, By.FIRST_BYTE) == {"3": 5}

    def test_computing_again_and_events_that_come_late_give_the_right_sums(self, hour):
        add_events(hour, 2)
        roll_up(wait=False)
        before = list(UsageRollup._get_collection().find().sort("_id"))
        rollup_marks.mark_minutes([hour])
        roll_up(wait=False)
        assert list(UsageRollup._get_collection().find().sort("_id")) == before
        add_events(hour, 1)
        roll_up(wait=False)
        assert sums(Grain.DAY, By.ALL) == {"": 3}
        assert RollupMark.objects.count() == 0

    def test_hours_wait_so_that_they_are_not_computed_for_every_batch(self, hour):
        add_events(hour)
        assert roll_up() == 1
        assert sums(Grain.HOUR, By.ALL) == {}
        assert RollupMark.objects.get().grain == "hour"

    def test_sums_by_video_are_written_once_when_their_time_is_over_and_until_then_only_what_charts_need(self):
        now = utcnow()
        add_events(now, 3)
        minute, hour = floor(now, Grain.MINUTE), floor(now, Grain.HOUR)
        roll_up(now=now)
        assert sums(Grain.MINUTE, By.ALL) == {"": 3}
        assert sums(Grain.MINUTE, By.KEY) == {"abcd1234": 3}
        assert sums(Grain.MINUTE, By.VIDEO) == {}
        assert RollupMark.objects.get(grain="minute").start == minute
        roll_up(now=minute + timedelta(minutes=1))
        assert sums(Grain.MINUTE, By.VIDEO) == {"abcdefghijk": 3}
        assert RollupMark.objects(grain="minute").count() == 0
        RollupMark.objects(grain="hour").update(set__since=now - timedelta(minutes=2))
        roll_up(now=hour + timedelta(hours=1) - timedelta(seconds=1))
        assert (sums(Grain.HOUR, By.ALL), sums(Grain.HOUR, By.VIDEO)) == ({"": 3}, {})
        RollupMark.objects(grain="hour").update(set__since=now - timedelta(minutes=2))
        roll_up(now=hour + timedelta(hours=1))
        assert sums(Grain.HOUR, By.VIDEO) == {"abcdefghijk": 3}
        assert [each.grain for each in RollupMark.objects] == ["day"]

    def test_events_that_came_while_their_minute_was_computed_keep_its_mark(self, hour, monkeypatch):
        add_events(hour)
        (seen,) = rollup_marks.marks(Grain.MINUTE, older_than_s=0)
        add_events(hour)
        rollup_marks.unmark([seen])
        assert RollupMark.objects.count() == 1

    def test_one_computes_at_a_time(self, hour):
        add_events(hour)
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with rollup_marks.rollup_lease() as mine:
                assert mine is not None
                inside.set()
                leave.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        assert inside.wait(30)
        assert roll_up() == 0
        leave.set()
        holder.join()
        assert roll_up() == 1

    def test_very_late_events_are_summed_from_the_events_themselves(self, hour):
        old = floor(hour, Grain.DAY) - timedelta(days=20)
        add_events(old, 4)
        roll_up(wait=False)
        UsageRollup.objects(grain="minute").delete()  # as their end would do
        add_events(old, 1)
        roll_up(wait=False)
        assert sums(Grain.DAY, By.ALL) == {"": 5}


class TestRebuild:
    def test_the_range_is_computed_anew_from_the_events(self, hour):
        for days in (0, 1, 3):
            add_events(hour - timedelta(days=days), days + 1)
        out = StringIO()
        first = floor(hour - timedelta(days=1), Grain.DAY)
        call_command("rollups", "rebuild", "--from", f"{first:%Y-%m-%d}", "--json", stdout=out)
        assert json.loads(out.getvalue()) == {"minute": 12, "hour": 12, "day": 12}
        assert sorted(row.requests for row in UsageRollup.objects(grain="day", by="all")) == [1, 2]
        call_command("rollups", "rebuild", stdout=out)
        assert sorted(row.requests for row in UsageRollup.objects(grain="day", by="all")) == [1, 2, 4]

    def test_the_sums_are_those_that_mongodb_itself_counts(self, hour, monkeypatch):
        random, now = Random(5), utcnow()
        monkeypatch.setattr(summing, "utcnow", lambda: now)  # what is kept no longer is the same for both
        for _ in range(60):
            add_events(
                hour - timedelta(seconds=random.randrange(3 * 86_400), milliseconds=random.randrange(1000)),
                random.randrange(1, 4),
                key_prefix=random.choice(["abcd1234", "wxyz9876", None]),
                video_id=random.choice(["abcdefghijk", "bbbbbbbbbbb", None]),
                status=random.choice([200, 206, 404, 429, 502]),
                error=random.choice(["not_found", None]),
                bytes_sent=random.randrange(1000),
            )
        rebuild(hour - timedelta(days=4), hour)
        values = {By.ALL: {"$literal": ""}, By.KEY: "$key_prefix", By.VIDEO: "$video_id", By.ROUTE: "$route"}
        for grain, (by, value) in product(Grain, values.items()):
            counted = UsageEvent.objects.aggregate(
                [
                    {"$match": {"at": {"$gte": floor(hour - timedelta(days=4), Grain.DAY)}}},
                    {
                        "$group": {
                            "_id": {"value": value, "start": {"$dateTrunc": {"date": "$at", "unit": grain.value}}},
                            "requests": {"$sum": 1},
                            "bytes": {"$sum": "$bytes_sent"},
                        }
                    },
                ]
            )
            expected = {
                (row["_id"]["value"], row["_id"]["start"].replace(tzinfo=UTC), row["requests"], row["bytes"])
                for row in counted
                if row["_id"].get("value") is not None
            }
            if grain is Grain.MINUTE and by is By.VIDEO:
                expected = {row for row in expected if row[1] > now - kept_for(grain, by)}
            rows = UsageRollup.objects(grain=grain.value, by=by.value)
            assert {(row.value, row.start, row.requests, row.bytes_sent) for row in rows} == expected

    def test_sums_that_are_right_are_not_written_again(self, hour):
        add_events(hour, 2)
        add_events(hour, 1, video_id="bbbbbbbbbbb")
        rebuild(hour, hour + timedelta(hours=1))
        UsageRollup._get_collection().update_many({}, {"$set": {"untouched": True}})
        add_events(hour, 1, video_id="bbbbbbbbbbb")
        rebuild(hour, hour + timedelta(hours=1))
        written = UsageRollup._get_collection().find({"untouched": None, "by": "video", "grain": "hour"})
        assert [(row["value"], row["requests"]) for row in written] == [("bbbbbbbbbbb", 2)]

    def test_it_waits_for_nobody_and_stops_when_it_lost_its_right(self, hour):
        with rollup_marks.rollup_lease() as lease:
            with pytest.raises(Conflict):
                rebuild(hour, hour + timedelta(hours=1))
            lease.extend()
            RollupLease.objects.update(owner="somebody-else")
            with pytest.raises(Conflict):
                lease.extend()
        RollupLease.objects.delete()

    def test_days_whose_events_have_ended_keep_their_sums(self, hour):
        old = floor(utcnow(), Grain.DAY) - timedelta(days=200)
        add_events(old + timedelta(hours=1), 9)
        roll_up(wait=False)
        UsageEvent.objects.delete()
        rebuild(old, ceil(utcnow(), Grain.DAY))
        assert sums(Grain.DAY, By.ALL) == {"": 9}

    def test_a_wrong_day_is_one_clear_line(self):
        with pytest.raises(CommandError, match="not a day"):
            call_command("rollups", "rebuild", "--from", "yesterday")


class TestIndexes:
    def test_a_changed_life_of_events_changes_the_index_in_place(self):
        events = UsageEvent._get_collection()
        real = events.index_information()["at_1"]["expireAfterSeconds"]
        mongoengine.get_db().command(
            "collMod", "usage_stats", index={"keyPattern": {"at": 1}, "expireAfterSeconds": 12345}
        )
        UsageEvent.ensure_indexes()
        assert events.index_information()["at_1"]["expireAfterSeconds"] == real == 90 * 86400


def test_who_stops_early_lets_the_reading_thread_finish_before_the_cursor_is_closed(hour, monkeypatch):
    add_events(hour)
    reading, may_end = threading.Event(), threading.Event()
    closed_while_reading, reads = [], []
    usual_read, usual_close = summing._some, Cursor.close

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args, **options):
            may_end.set()
            super().shutdown(*args, **options)

    def read(events):
        reads.append(1)
        if len(reads) > 1:
            reading.set()
            assert may_end.wait(60)
        found = usual_read(events)
        reading.clear()
        return found

    def close(cursor):
        closed_while_reading.append(reading.is_set())
        usual_close(cursor)

    monkeypatch.setattr(summing, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(summing, "_some", read)
    events = summing._events(hour, hour + timedelta(minutes=1))
    assert next(events)["route"] == "/api/v1/audio"
    assert reading.wait(60)
    with monkeypatch.context() as patch:
        patch.setattr(Cursor, "close", close)
        events.close()
    assert closed_while_reading
    assert not any(closed_while_reading)
