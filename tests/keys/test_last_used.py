from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from pymongo.errors import ConnectionFailure

from apps.keys import last_used
from apps.keys.documents import ApiKey
from apps.keys.last_used import note_keys_used
from apps.keys.services import create_key
from tests.waiting import wait_until


@pytest.fixture
def writes(mongo, monkeypatch):
    """What is written from now on, key by key, in lists as it is written."""
    done: list[list[str]] = []
    usual = last_used.mark_keys_used

    def noted(prefixes, **more):
        usual(prefixes, **more)
        done.append(sorted(prefixes))

    monkeypatch.setattr(last_used, "mark_keys_used", noted)
    return done


def make_keys(count: int) -> list[str]:
    return sorted(create_key(name="bot").document.prefix for _ in range(count))


def test_many_keys_are_written_with_one_update_and_not_again_within_a_minute(writes):
    prefixes, other = make_keys(20), make_keys(1)[0]
    note_keys_used(prefixes)
    note_keys_used(prefixes)
    note_keys_used([other])
    wait_until(lambda: sum(map(len, writes)) >= 21)
    assert {*prefixes} <= {*writes[0]}
    assert sorted(prefix for write in writes for prefix in write) == sorted([*prefixes, other])
    assert ApiKey.objects(prefix__in=prefixes, last_used_at=None).count() == 0


def test_what_comes_while_one_is_written_is_written_together(writes, monkeypatch):
    first, *others = make_keys(11)
    began, go_on = threading.Event(), threading.Event()
    usual = last_used.mark_keys_used

    def slow(prefixes, **more):
        began.set()
        assert go_on.wait(30)
        usual(prefixes, **more)

    monkeypatch.setattr(last_used, "mark_keys_used", slow)
    note_keys_used([first])
    assert began.wait(30)
    for prefix in others:
        note_keys_used([prefix])
    go_on.set()
    wait_until(lambda: len(writes) == 2)
    assert writes == [[first], sorted(others)]


def test_a_newer_time_that_another_process_wrote_stays(writes):
    fresh, stale = make_keys(2)
    now = datetime.now(UTC).replace(microsecond=0)
    ApiKey.objects(prefix=fresh).update_one(last_used_at=now)
    ApiKey.objects(prefix=stale).update_one(last_used_at=datetime(2020, 1, 1, tzinfo=UTC))
    note_keys_used([fresh, stale])
    wait_until(lambda: writes == [[fresh, stale]])
    assert ApiKey.objects.get(prefix=fresh).last_used_at == now
    assert ApiKey.objects.get(prefix=stale).last_used_at > datetime(2020, 1, 2, tzinfo=UTC)


def test_a_write_that_fails_stops_no_later_one(writes, monkeypatch):
    first, second = make_keys(2)
    failed = threading.Event()

    def fail(prefixes, **more):
        failed.set()
        raise ConnectionFailure

    with monkeypatch.context() as patch:
        patch.setattr(last_used, "mark_keys_used", fail)
        note_keys_used([first])
        assert failed.wait(30)
    note_keys_used([second])
    wait_until(lambda: writes == [[second]])
