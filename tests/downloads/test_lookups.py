from datetime import timedelta

import pytest

from apps.core.clock import utcnow
from apps.core.errors import NotFound, Overloaded, UpstreamError, UpstreamTimeout
from apps.core.redis import redis_client
from apps.core.suspend import Suspend
from apps.downloads.documents import LookupRecord
from apps.downloads.services import flights, lookups
from apps.downloads.services.lookups import FRESH, Lookup, LookupKind, answer_lookup, wait_for_lookup

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")
SEARCH = Lookup(kind=LookupKind.SEARCH, subject="a song", detail="1:20")


class Source:
    """Answers lookups: with ``answer``, or by raising it."""

    def __init__(self):
        self.answer = {"n": 1}
        self.calls = 0
        self.meanwhile = lambda: None

    def __call__(self, lookup, timeout_s):
        self.calls += 1
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def source():
    return Source()


def messages() -> int:
    return redis_client().llen(flights.RESOLVE_QUEUE)


def age(by: timedelta) -> None:
    record = LookupRecord.objects.get()
    LookupRecord.objects.update(set__fresh_until=record.fresh_until - by, set__expires_at=record.expires_at - by)


def test_whoever_asks_first_suspends_and_sends_one_task():
    for _ in range(5):
        with pytest.raises(Suspend):
            wait_for_lookup(SEARCH, waited_s=0)
    assert messages() == 1


def test_an_answer_is_given_to_everybody_and_asked_for_once(source):
    answer_lookup(SEARCH, source)
    answer_lookup(SEARCH, source)
    assert wait_for_lookup(SEARCH, waited_s=0) == {"n": 1}
    assert (source.calls, messages()) == (1, 0)


def test_other_words_or_pages_are_other_questions(source):
    answer_lookup(SEARCH, source)
    for other in (
        Lookup(kind=LookupKind.SEARCH, subject="a song", detail="2:20"),
        Lookup(kind=LookupKind.SEARCH, subject="another", detail="1:20"),
        Lookup(kind=LookupKind.PLAYLIST, subject="a song", detail="1:20"),
    ):
        with pytest.raises(Suspend):
            wait_for_lookup(other, waited_s=0)


def test_one_asks_while_another_does(source):
    source.meanwhile = lambda: answer_lookup(SEARCH, source)
    answer_lookup(SEARCH, source)
    assert source.calls == 1


def test_an_aged_answer_is_given_at_once_and_renewed(source):
    answer_lookup(SEARCH, source)
    age(timedelta(hours=1))
    assert wait_for_lookup(SEARCH, waited_s=0) == {"n": 1}
    assert messages() == 1
    source.answer = {"n": 2}
    answer_lookup(SEARCH, source)
    assert wait_for_lookup(SEARCH, waited_s=0) == {"n": 2}


def test_a_very_old_answer_is_forgotten(source):
    answer_lookup(SEARCH, source)
    age(timedelta(days=1))
    with pytest.raises(Suspend):
        wait_for_lookup(SEARCH, waited_s=0)


def test_an_aged_answer_outlives_a_failing_source(source):
    answer_lookup(SEARCH, source)
    age(timedelta(hours=1))
    source.answer = UpstreamError()
    answer_lookup(SEARCH, source)
    assert wait_for_lookup(SEARCH, waited_s=0) == {"n": 1}
    assert messages() == 0


def test_what_is_not_there_is_remembered_for_ten_minutes(source):
    source.answer = NotFound("Gone.")
    answer_lookup(SEARCH, source)
    with pytest.raises(NotFound, match="Gone"):
        wait_for_lookup(SEARCH, waited_s=0)
    assert abs(LookupRecord.objects.get().expires_at - utcnow() - timedelta(minutes=10)) < timedelta(minutes=1)


def test_a_failing_source_is_left_alone_for_a_moment(source):
    source.answer = UpstreamError("It burns.")
    answer_lookup(SEARCH, source)
    with pytest.raises(UpstreamError, match="It burns") as caught:
        wait_for_lookup(SEARCH, waited_s=0)
    assert 1 <= caught.value.retry_after_s <= 15


def test_a_fault_of_ours_is_recorded_so_that_nobody_waits_for_ever(source):
    source.answer = ZeroDivisionError("secret detail")
    answer_lookup(SEARCH, source)
    record = LookupRecord.objects.get()
    assert record.error_code == "internal_error"
    assert "secret" not in record.error_message


def test_waiting_ends():
    with pytest.raises(UpstreamTimeout):
        wait_for_lookup(SEARCH, waited_s=25)


@pytest.mark.parametrize("kind", LookupKind)
def test_an_aged_answer_is_given_while_no_more_can_be_asked(source, monkeypatch, kind):
    lookup = Lookup(kind=kind, subject="anything")
    answer_lookup(lookup, source)
    age(FRESH[kind])
    monkeypatch.setattr(flights, "MAX_WAITING", 0)
    assert wait_for_lookup(lookup, waited_s=0) == {"n": 1}
    with pytest.raises(Overloaded):
        wait_for_lookup(Lookup(kind=kind, subject="what nobody knows"), waited_s=0)


@pytest.mark.parametrize("kind", LookupKind)
def test_of_each_kind_those_that_nobody_reads_are_forgotten_first(source, monkeypatch, kind):
    monkeypatch.setitem(lookups.MAX_KEPT, kind, 2)
    monkeypatch.setattr(lookups, "DROPPED_AT_ONCE", 1)
    oldest, unread, newest = (Lookup(kind=kind, subject=name) for name in ("oldest", "unread", "newest"))
    for hours, lookup in ((2, oldest), (1, unread)):
        answer_lookup(lookup, source)
        LookupRecord.objects(id=lookup.record_id).update(set__used_at=utcnow() - timedelta(hours=hours))
    wait_for_lookup(oldest, waited_s=0)
    source.answer = NotFound()  # a failure takes a place as well
    answer_lookup(newest, source)
    assert {record.id for record in LookupRecord.objects} == {oldest.record_id, newest.record_id}


def test_reading_again_and_again_writes_once(source):
    answer_lookup(SEARCH, source)
    LookupRecord.objects.update(set__used_at=utcnow() - timedelta(hours=1))
    wait_for_lookup(SEARCH, waited_s=0)
    noted = LookupRecord.objects.get().used_at
    assert noted > utcnow() - timedelta(minutes=5)
    wait_for_lookup(SEARCH, waited_s=0)
    assert LookupRecord.objects.get().used_at == noted
