import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.conf import settings

from apps.core import suspend
from apps.core.asker import asker_var
from apps.core.clock import utcnow
from apps.core.errors import LiveNotSupported, NotReady, Overloaded, UpstreamError, VideoPrivate
from apps.core.owners import make_owner
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import VideoInfoRecord
from apps.downloads.services import flights, info, question_lanes
from apps.downloads.services.lookups import Lookup, LookupKind, wait_for_lookup
from apps.downloads.services.media import wait_for_info, wait_for_new_info
from apps.downloads.services.question_lanes import Lane
from tests.downloads.samples import VIDEO_ID, video_info
from tests.full_redis import full_redis

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")


class Chain:
    """Stands for the provider chain: gives or raises what it is told, and counts."""

    def __init__(self) -> None:
        self.answer = video_info()
        self.calls = 0
        self.meanwhile = lambda: None

    def resolve(self, video_id, *, timeout_s):
        self.calls += 1
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def chain(monkeypatch):
    chain = Chain()
    monkeypatch.setattr(info, "provider_chain", lambda: chain)
    return chain


@contextmanager
def clock_ahead(monkeypatch, ahead_s: float):
    """As on a machine whose clock is wrong by so many seconds; Redis's is not."""
    right = time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right() + ahead_s)
        yield


FIRST_QUEUE, LATER_QUEUE, LAST_QUEUE = (flights.queue_of(lane) for lane in Lane)


def messages() -> int:
    return redis_client().llen(flights.RESOLVE_QUEUE)


def age(**change: timedelta) -> None:
    record = VideoInfoRecord.objects.get()
    VideoInfoRecord.objects.update_one(**{f"set__{name}": getattr(record, name) - by for name, by in change.items()})


class TestResolveInfo:
    def test_a_good_answer_is_fresh_for_six_hours_and_kept_for_a_week(self, chain):
        info.resolve_info(VIDEO_ID)
        assert info.get_info(VIDEO_ID) == video_info()
        record = VideoInfoRecord.objects.get()
        assert abs(record.fresh_until - utcnow() - timedelta(hours=6)) < timedelta(minutes=1)
        assert abs(record.expires_at - utcnow() - timedelta(days=7)) < timedelta(minutes=1)
        age(fresh_until=timedelta(hours=30))
        assert info.get_info(VIDEO_ID) is None

    def test_an_aged_answer_is_given_at_once_and_asked_for_again_once(self, chain):
        info.resolve_info(VIDEO_ID)
        age(fresh_until=timedelta(hours=7))
        for _ in range(5):
            assert info.get_info(VIDEO_ID) == video_info()
        assert messages() == 1
        chain.answer = video_info().model_copy(update={"title": "New"})
        info.resolve_info(VIDEO_ID)
        assert info.get_info(VIDEO_ID).title == "New"
        assert chain.calls == 2

    def test_an_aged_answer_is_given_also_when_nobody_can_be_asked(self, chain, monkeypatch):
        info.resolve_info(VIDEO_ID)
        age(fresh_until=timedelta(hours=7))
        monkeypatch.setattr(flights, "MAX_WAITING", 0)
        assert info.get_info(VIDEO_ID) == video_info()

    def test_what_was_known_days_ago_is_given_rather_than_nothing(self, chain, monkeypatch):
        info.resolve_info(VIDEO_ID)
        age(fresh_until=timedelta(days=3))
        with pytest.raises(Suspend):
            wait_for_info(VIDEO_ID, waited_s=0)
        redis_client().delete(f"yt:info:sent:{VIDEO_ID}")
        monkeypatch.setattr(flights, "MAX_WAITING", 0)
        assert wait_for_info(VIDEO_ID, waited_s=0) == video_info()
        with pytest.raises(Overloaded):
            wait_for_info("aaaaaaaaaaa", waited_s=0)

    def test_newer_metadata_is_not_worth_an_error_while_too_many_questions_wait(self, chain, monkeypatch):
        info.resolve_info(VIDEO_ID)
        VideoInfoRecord.objects.update_one(set__asked_at=utcnow() - timedelta(hours=1))
        monkeypatch.setattr(flights, "MAX_WAITING", 0)
        assert wait_for_new_info(VIDEO_ID, waited_s=0) == video_info()

    @pytest.mark.parametrize(
        ("days_old", "fresh"), [(0, timedelta(minutes=30)), (2, timedelta(minutes=30)), (5, timedelta(hours=6))]
    )
    def test_a_new_video_is_looked_at_more_often(self, chain, days_old, fresh):
        soon = utcnow() + timedelta(minutes=1)  # the day may end while this runs
        date = (soon - timedelta(days=days_old)).strftime("%Y%m%d")
        chain.answer = video_info().model_copy(update={"upload_date": date})
        info.resolve_info(VIDEO_ID)
        assert abs(VideoInfoRecord.objects.get().fresh_until - utcnow() - fresh) < timedelta(minutes=1)

    def test_a_live_stream_is_looked_at_again_soon(self, chain):
        chain.answer = LiveNotSupported()
        info.resolve_info(VIDEO_ID)
        assert abs(VideoInfoRecord.objects.get().fresh_until - utcnow() - timedelta(minutes=2)) < timedelta(minutes=1)

    def test_asks_nobody_when_it_is_known(self, chain):
        info.resolve_info(VIDEO_ID)
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 1

    def test_a_content_error_is_remembered_for_ten_minutes(self, chain):
        chain.answer = VideoPrivate()
        info.resolve_info(VIDEO_ID)
        with pytest.raises(VideoPrivate):
            info.get_info(VIDEO_ID)
        assert abs(VideoInfoRecord.objects.get().fresh_until - utcnow() - timedelta(minutes=10)) < timedelta(minutes=1)
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 1

    def test_a_failing_source_is_left_alone_for_fifteen_seconds(self, chain):
        chain.answer = UpstreamError("It burns.")
        info.resolve_info(VIDEO_ID)
        with pytest.raises(UpstreamError, match="It burns") as caught:
            info.get_info(VIDEO_ID)
        assert 1 <= caught.value.retry_after_s <= 15
        age(fresh_until=timedelta(seconds=15))
        assert info.get_info(VIDEO_ID) is None

    @pytest.mark.parametrize(("asked_s", "waits_s"), [(5, 15), (120, 120), (10**6, 3600)])
    def test_a_source_that_asks_for_more_time_gets_it(self, chain, asked_s, waits_s):
        chain.answer = UpstreamError(retry_after_s=asked_s)
        info.resolve_info(VIDEO_ID)
        with pytest.raises(UpstreamError) as caught:
            info.get_info(VIDEO_ID)
        assert waits_s - 10 < caught.value.retry_after_s <= waits_s

    def test_an_old_answer_outlives_a_failing_source(self, chain):
        info.resolve_info(VIDEO_ID)
        age(fresh_until=timedelta(hours=6))
        chain.answer = UpstreamError()
        info.resolve_info(VIDEO_ID)
        assert info.get_info(VIDEO_ID) == video_info()
        assert VideoInfoRecord.objects.get().fresh_until < utcnow() + timedelta(seconds=16)

    def test_a_removed_video_replaces_the_old_answer(self, chain):
        info.resolve_info(VIDEO_ID)
        age(fresh_until=timedelta(hours=6))
        chain.answer = VideoPrivate()
        info.resolve_info(VIDEO_ID)
        with pytest.raises(VideoPrivate):
            info.get_info(VIDEO_ID)

    def test_a_fault_of_ours_is_recorded_so_that_nobody_waits_for_ever(self, chain):
        chain.answer = ZeroDivisionError("secret detail")
        info.resolve_info(VIDEO_ID)
        record = VideoInfoRecord.objects.get()
        assert record.error_code == "internal_error"
        assert "secret" not in record.error_message

    def test_one_asks_while_another_does(self, chain):
        chain.meanwhile = lambda: info.resolve_info(VIDEO_ID)
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 1

    def test_the_lock_of_a_dead_process_is_taken_over(self, chain):
        redis_client().set(f"yt:info:lock:{VIDEO_ID}", f"{make_owner()}1:token")
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 1
        assert redis_client().get(f"yt:info:lock:{VIDEO_ID}") is None

    def test_the_lock_of_somebody_who_cannot_be_seen_from_here_is_respected(self, chain):
        redis_client().set(f"yt:info:lock:{VIDEO_ID}", "another machine:1:2")
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 0

    def test_what_another_version_wrote_is_asked_again(self, chain):
        info.resolve_info(VIDEO_ID)
        VideoInfoRecord.objects.update_one(set__info={"surprise": 1})
        assert info.get_info(VIDEO_ID) is None
        info.resolve_info(VIDEO_ID)
        assert chain.calls == 2


class TestRequestInfo:
    def test_many_calls_send_one_task(self):
        for _ in range(20):
            info.request_info(VIDEO_ID)
        assert messages() == 1

    def test_sends_nothing_while_somebody_asks_outside(self, chain):
        chain.meanwhile = lambda: (redis_client().delete(f"yt:info:sent:{VIDEO_ID}"), info.request_info(VIDEO_ID))
        info.resolve_info(VIDEO_ID)
        assert messages() == 0

    def test_a_lost_task_is_sent_again_after_a_while(self):
        info.request_info(VIDEO_ID)
        assert 0 < redis_client().ttl(f"yt:info:sent:{VIDEO_ID}") <= question_lanes.RESEND_S
        redis_client().flushdb()  # the mark runs out, the message is gone
        info.request_info(VIDEO_ID)
        assert messages() == 1

    def test_patient_questions_stand_behind_all_others_and_leave_places_free(self, chain):
        videos = [f"video{number:06}" for number in range(6)]
        for _ in range(3):
            for video_id in videos:
                info.request_info(video_id, patient=True)
        places = settings.ENV.worker_threads // 2
        assert (messages(), redis_client().llen(LAST_QUEUE)) == (0, places)
        info.request_info(videos[0])
        assert messages() == 1  # somebody waits for it now
        for video_id in videos[:places]:
            chain.answer = video_info(video_id)
            info.resolve_info(video_id)
        for video_id in videos:
            info.request_info(video_id, patient=True)
        assert redis_client().llen(LAST_QUEUE) == 2 * places

    @pytest.mark.parametrize("ahead_s", [-40, 40])
    def test_a_machine_with_a_wrong_clock_finds_the_patient_places_as_taken_as_they_are(self, monkeypatch, ahead_s):
        places = settings.ENV.worker_threads // 2
        for number in range(places):
            info.request_info(f"video{number:06}", patient=True)
        with clock_ahead(monkeypatch, ahead_s):
            for number in range(2 * places):
                info.request_info(f"video{number:06}", patient=True)
        for number in range(2 * places):
            info.request_info(f"video{number:06}", patient=True)
        assert redis_client().llen(LAST_QUEUE) == places

    def test_a_place_taken_by_a_machine_with_a_slow_clock_is_kept(self, monkeypatch):
        places = settings.ENV.worker_threads // 2
        with clock_ahead(monkeypatch, -40):
            for number in range(places):
                info.request_info(f"video{number:06}", patient=True)
        info.request_info(VIDEO_ID, patient=True)
        assert redis_client().llen(LAST_QUEUE) == places

    def test_a_question_that_cannot_be_sent_is_no_question_that_took_too_long(self, monkeypatch):
        """Redis that is full takes no message; what waits counts for nobody then, and is sent once there is room."""
        token = asker_var.set("somebody")
        try:
            with full_redis():
                for _ in range(2):
                    with pytest.raises(NotReady):
                        info.request_info(VIDEO_ID)
                info.renew_info(VIDEO_ID)
                info.request_info(VIDEO_ID, patient=True)
        finally:
            asker_var.reset(token)
        info.request_info(VIDEO_ID)
        assert messages() == 1

    def test_the_queue_is_bounded(self, monkeypatch):
        monkeypatch.setattr(flights, "MAX_WAITING", 1)
        info.request_info(VIDEO_ID)
        with pytest.raises(Overloaded):
            info.request_info("aaaaaaaaaaa")


class TestFairnessBetweenKeys:
    """Many questions of one key stand behind the first ones of every other, and are bounded."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr(question_lanes, "FEW", 2)
        monkeypatch.setattr(question_lanes, "MOST", 5)
        token = asker_var.set("")
        yield
        asker_var.reset(token)

    @staticmethod
    def ask(prefix: str | None, number: int) -> None:
        asker_var.set(prefix)
        info.request_info(f"video{number:06}")

    @staticmethod
    def waiting() -> tuple[int, int]:
        return redis_client().llen(FIRST_QUEUE), redis_client().llen(LATER_QUEUE)

    def test_a_key_is_told_when_it_has_enough_and_others_go_first(self):
        for number in range(5):
            self.ask("greedy00", number)
        assert self.waiting() == (2, 3)
        with pytest.raises(Overloaded) as refused:
            self.ask("greedy00", 5)
        assert refused.value.retry_after_s
        assert self.waiting() == (2, 3)
        self.ask("modest00", 6)
        assert self.waiting() == (3, 3)

    def test_lists_and_lookups_count_too(self):
        for number in range(5):
            self.ask("greedy00", number)
        with pytest.raises(Overloaded):
            wait_for_lookup(Lookup(kind=LookupKind.SEARCH, subject="words"), waited_s=0)

    def test_an_answer_makes_room(self, chain):
        for number in range(5):
            self.ask("greedy00", number)
        info.resolve_info("video000000")
        self.ask("greedy00", 5)
        with pytest.raises(Overloaded):
            self.ask("greedy00", 6)

    def test_a_question_that_nobody_answers_counts_no_longer_than_anybody_waits(self):
        for number in range(5):
            self.ask("greedy00", number)
        long_ago = time.time() - question_lanes.LIFE_S - 1
        redis_client().zadd("yt:flights:of:greedy00", {"info:video000000": long_ago})
        self.ask("greedy00", 5)

    @pytest.mark.parametrize(("first_s", "then_s"), [(0, 40), (-40, 0)])
    def test_machines_whose_clocks_differ_count_the_same_questions(self, monkeypatch, first_s, then_s):
        with clock_ahead(monkeypatch, first_s):
            for number in range(5):
                self.ask("greedy00", number)
        with clock_ahead(monkeypatch, then_s), pytest.raises(Overloaded):
            self.ask("greedy00", 5)
        assert self.waiting() == (2, 3)

    def test_who_joins_pays_nothing(self):
        for number in range(5):
            self.ask("greedy00", number)
        self.ask("modest00", 6)
        self.ask("greedy00", 6)
        redis_client().delete("yt:info:sent:video000006")  # its message may be lost
        self.ask("greedy00", 6)
        assert self.waiting() == (4, 3)

    def test_who_joins_a_question_far_back_brings_it_forward_once(self):
        for number in range(5):
            self.ask("greedy00", number)
        for _ in range(3):
            self.ask("modest00", 4)
        assert self.waiting() == (3, 3)
        self.ask("modest00", 6)
        self.ask("modest00", 7)
        assert self.waiting() == (4, 4)  # it counted as one of its own

    def test_the_first_lane_stays_open_when_the_second_is_full(self, monkeypatch):
        monkeypatch.setattr(flights, "MAX_WAITING", 3)
        for number in range(5):
            self.ask("greedy00", number)
        with pytest.raises(Overloaded):
            self.ask("greedy01", 5) or self.ask("greedy01", 6) or self.ask("greedy01", 7)
        assert redis_client().llen(LATER_QUEUE) == 3

    def test_the_server_itself_is_not_bounded_and_a_look_for_nobody_asks_nothing(self):
        for number in range(7):
            self.ask("", number)
        self.ask(None, 8)
        assert self.waiting() == (7, 0)

    def test_many_at_once_pass_no_bound(self):
        refused = []

        def ask(number: int) -> None:
            try:
                self.ask("greedy00", number)
            except Overloaded:
                refused.append(number)

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(ask, range(30)))
        assert (self.waiting(), len(refused)) == ((2, 3), 25)


def test_every_way_to_ask_counts_for_its_key(api, monkeypatch):
    monkeypatch.setattr(question_lanes, "MOST", 0)
    monkeypatch.setattr(suspend, "MAX_WAIT_S", 0.0)
    for path, fields in {
        "info": {"url": VIDEO_ID},
        "audio": {"url": VIDEO_ID},
        "search": {"q": "words"},
        "playlist": {"url": "PLabcdefghijkl"},
        "subtitles": {"url": VIDEO_ID, "lang": "en"},
        f"thumbnail/{VIDEO_ID}": {},
    }.items():
        answer = api.get(path, **fields)
        assert (answer.status_code, answer.json()["error"], path) == (503, "overloaded", path)
        assert answer["Retry-After"]
    assert messages() == 0
