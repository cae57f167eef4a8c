from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pymongo.errors import NetworkTimeout

from apps.core.errors import KeyDisabled, KeyExpired, KeyInvalid, KeyMissing
from apps.core.outages import outage_of
from apps.keys import authentication, key_cache
from apps.keys.authentication import authenticate, extract_key, forget_cached_keys, grant_for_prefix
from apps.keys.documents import ApiKey
from apps.keys.services import create_key, revoke_key
from tests.waiting import Clock, wait_until


class TestExtractKey:
    @pytest.mark.parametrize(
        ("headers", "query", "expected"),
        [
            ({"x-api-key": "a"}, {"api_key": "b"}, "a"),
            ({"x-api-key": " a "}, {}, "a"),
            ({"authorization": "Bearer a"}, {}, "a"),
            ({"authorization": "bearer  a "}, {}, "a"),
            ({"authorization": "Basic dXNlcjpwYXNz"}, {"api_key": "b"}, "b"),
            ({"authorization": "Bearer"}, {}, None),
            ({"x-api-key": ""}, {"api_key": ""}, None),
            ({}, {}, None),
        ],
    )
    def test_finds_the_key_in_header_bearer_or_query(self, headers, query, expected):
        assert extract_key(headers, query) == expected


@pytest.mark.usefixtures("mongo")
class TestAuthenticate:
    def test_gives_what_a_good_key_may_do_and_never_the_secret(self):
        new = create_key(name="bot", owner="ada", limit_per_hour=7)
        grant = authenticate(new.key)
        assert (grant.prefix, grant.name, grant.owner, grant.limit_per_hour) == (new.document.prefix, "bot", "ada", 7)
        assert grant.scopes == {"info", "media", "search"}
        assert new.key[12:] not in repr(grant)

    @pytest.mark.parametrize("raw", [None, ""])
    def test_asks_for_a_key_when_there_is_none(self, raw):
        with pytest.raises(KeyMissing):
            authenticate(raw)

    @pytest.mark.parametrize(
        "raw", ["x", "yt_abc", "yt_abcdefgh_short", "yt_abcdefgh_" + "ü" * 43, "yt_" + "a" * 5000, "\0"]
    )
    def test_refuses_what_is_no_key_without_asking_mongodb(self, raw, monkeypatch):
        monkeypatch.setattr(key_cache, "key_rows", None)
        with pytest.raises(KeyInvalid):
            authenticate(raw)

    def test_tells_a_wrong_secret_from_an_unknown_prefix_in_no_way(self):
        new = create_key(name="bot")
        wrong = new.key[:-1] + ("A" if new.key[-1] != "A" else "B")
        with pytest.raises(KeyInvalid) as wrong_secret:
            authenticate(wrong)
        with pytest.raises(KeyInvalid) as unknown:
            authenticate("yt_00000000_" + "a" * 43)
        assert str(wrong_secret.value) == str(unknown.value)

    def test_a_wrong_secret_of_a_revoked_key_is_only_invalid(self):
        new = create_key(name="bot")
        revoke_key(new.document.prefix)
        with pytest.raises(KeyInvalid):
            authenticate(new.key[:12] + "a" * 43)
        with pytest.raises(KeyDisabled):
            authenticate(new.key)

    def test_an_expired_key_says_so_though_its_record_is_cached(self, monkeypatch):
        new = create_key(name="bot", expires_at=datetime.now(UTC) + timedelta(hours=1))
        authenticate(new.key)
        monkeypatch.setattr(
            authentication, "datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(hours=1))
        )
        with pytest.raises(KeyExpired):
            authenticate(new.key)
        with pytest.raises(KeyExpired):
            grant_for_prefix(new.document.prefix)

    def test_a_key_revoked_by_another_process_stops_within_a_second(self, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(key_cache, "time", clock)
        new = create_key(name="bot")
        authenticate(new.key)
        ApiKey.objects(prefix=new.document.prefix).update_one(active=False)  # behind this process's cache
        clock.ahead_s = key_cache.MAX_AGE_S + 0.001
        assert key_cache.MAX_AGE_S < 1
        with pytest.raises(KeyDisabled):
            authenticate(new.key)
        with pytest.raises(KeyDisabled):
            grant_for_prefix(new.document.prefix)

    def test_a_key_made_by_a_real_other_process_works_here(self):
        program = (
            "import django; django.setup(); from apps.keys.services import create_key; print(create_key(name='x').key)"
        )
        key = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
        assert authenticate(key).name == "x"

    def test_many_threads_asking_for_one_key_read_it_once(self, monkeypatch):
        new = create_key(name="bot")
        forget_cached_keys()
        reads: list[str] = []
        arrived = threading.Barrier(32)
        key_rows = key_cache.key_rows

        def slow_key_rows(prefixes):
            reads.extend(prefixes)
            wait_until(lambda: arrived.n_waiting == 0)
            return key_rows(prefixes)

        def ask():
            arrived.wait()
            grants.append(authenticate(new.key))

        monkeypatch.setattr(key_cache, "key_rows", slow_key_rows)
        grants: list[object] = []
        threads = [threading.Thread(target=ask) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(grants) == 32
        assert len(reads) == 1

    def test_unknown_prefixes_are_remembered_briefly_and_in_bounded_memory(self, monkeypatch):
        reads: list[str] = []
        monkeypatch.setattr(key_cache, "key_rows", lambda prefixes: reads.extend(prefixes) or [])
        monkeypatch.setattr(key_cache, "MAX_UNKNOWN", 50)
        for number in range(200):
            for _ in range(3):
                with pytest.raises(KeyInvalid):
                    authenticate(f"yt_{number:08d}_" + "a" * 43)
        assert len(reads) == 200
        assert len(key_cache.key_cache()._unknown) == 50

    def test_unknown_prefixes_do_not_push_known_keys_out(self, monkeypatch):
        new = create_key(name="bot")
        authenticate(new.key)
        monkeypatch.setattr(key_cache, "MAX_UNKNOWN", 5)
        cached = dict(key_cache.key_cache()._known)
        for number in range(20):
            with pytest.raises(KeyInvalid):
                authenticate(f"yt_{number:08d}_" + "a" * 43)
        assert cached.items() <= key_cache.key_cache()._known.items()

    def test_who_waits_for_another_s_read_that_hangs_is_told_that_mongodb_is_away(self, monkeypatch):
        new = create_key(name="bot")
        forget_cached_keys()
        begun, may_end = threading.Event(), threading.Event()
        key_rows = key_cache.key_rows

        def hang(prefixes):
            begun.set()
            assert may_end.wait(60)
            return key_rows(prefixes)

        monkeypatch.setattr(key_cache, "key_rows", hang)
        monkeypatch.setattr(key_cache, "LOAD_TIMEOUT_S", 0.01)
        monkeypatch.setattr(key_cache, "MAX_AGE_S", 60)
        leader = threading.Thread(target=authenticate, args=[new.key])
        leader.start()
        assert begun.wait(60)
        with pytest.raises(NetworkTimeout) as raised:
            authenticate(new.key)
        assert outage_of(raised.value) is not None
        may_end.set()
        leader.join()

    def test_what_mongodb_raises_reaches_everybody_who_waits_and_is_not_remembered(self, monkeypatch):
        new = create_key(name="bot")
        forget_cached_keys()

        def fail(prefixes):
            raise ConnectionError("down")

        with monkeypatch.context() as patch:
            patch.setattr(key_cache, "key_rows", fail)
            with pytest.raises(ConnectionError):
                authenticate(new.key)
        assert authenticate(new.key).name == "bot"
