from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from bisect import bisect_right

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from apps.core.errors import QuotaExceeded, RateLimited
from apps.core.redis import redis_client
from apps.keys import limits, redis_loss
from apps.keys.grants import KeyGrant
from apps.keys.limits import charge, charge_failure, limit_headers, tightest, usage
from apps.keys.local_limits import LocalLimiter
from apps.keys.windows import Window, WindowKind
from tests.waiting import Clock

NOON_S = 1_700_000_000.0 - 1_700_000_000.0 % 10


def make_grant(
    *, limit: int = 5, prefix: str = "aaaaaaaa", per_day: int | None = None, bytes_per_day: int | None = None
) -> KeyGrant:
    return KeyGrant(
        prefix=prefix,
        name="n",
        owner="",
        scopes=frozenset(),
        limit_per_hour=limit,
        limit_per_day=per_day,
        bytes_per_day=bytes_per_day,
    )


def is_let_through(grant: KeyGrant, now_s: float) -> bool:
    try:
        charge(grant, now_s=now_s)
    except RateLimited:
        return False
    return True


@pytest.fixture(autouse=True)
def _redis(redis_server, monkeypatch):
    monkeypatch.setattr(limits, "health", redis_loss.RedisHealth())
    monkeypatch.setattr(limits, "local_counts", LocalLimiter())


class TestCharge:
    def test_counts_down_to_the_limit_and_then_says_when_to_come_back(self):
        grant = make_grant(limit=3)
        assert [charge(grant, now_s=NOON_S + second).remaining for second in (0, 1, 12)] == [2, 1, 0]
        with pytest.raises(RateLimited) as refused:
            charge(grant, now_s=NOON_S + 13)
        state = refused.value.limit_state
        assert (state.limit, state.remaining, state.reset_s) == (3, 0, 3610 - 13)
        assert refused.value.retry_after_s == state.reset_s

    def test_a_slot_is_not_free_before_its_hour_is_over_and_free_at_most_ten_seconds_later(self):
        grant = make_grant(limit=1)
        assert is_let_through(grant, NOON_S + 9.999)
        for now_s in (3599, 3600, 3609.998):
            assert not is_let_through(grant, NOON_S + now_s)
        assert is_let_through(grant, NOON_S + 3610)

    def test_coming_back_when_told_to_is_let_through(self):
        grant = make_grant(limit=2)
        assert is_let_through(grant, NOON_S + 3)
        assert is_let_through(grant, NOON_S + 500)
        with pytest.raises(RateLimited) as refused:
            charge(grant, now_s=NOON_S + 600)
        back_s = NOON_S + 600 + refused.value.retry_after_s
        assert not is_let_through(grant, back_s - 1)
        assert is_let_through(grant, back_s)
        assert not is_let_through(grant, back_s)

    def test_refused_requests_do_not_count(self):
        grant = make_grant(limit=1)
        assert is_let_through(grant, NOON_S)
        for second in range(1, 3600, 60):
            assert not is_let_through(grant, NOON_S + second)
        assert is_let_through(grant, NOON_S + 3610)

    def test_a_lowered_limit_holds_at_once_and_says_when_enough_slots_are_free(self):
        for second in (0, 100, 200, 300):
            assert is_let_through(make_grant(limit=10), NOON_S + second)
        with pytest.raises(RateLimited) as refused:
            charge(make_grant(limit=2), now_s=NOON_S + 400)
        assert refused.value.retry_after_s == 200 + 3610 - 400
        assert not is_let_through(make_grant(limit=2), NOON_S + 200 + 3609)
        assert is_let_through(make_grant(limit=2), NOON_S + 200 + 3610)

    def test_the_count_stays_right_when_old_buckets_were_dropped_by_a_refused_request(self):
        for second in (0, 100, 200, 300):
            assert is_let_through(make_grant(limit=10), NOON_S + second)
        assert not is_let_through(make_grant(limit=2), NOON_S + 3650)  # drops the first, and is refused
        assert charge(make_grant(limit=10), now_s=NOON_S + 3650).remaining == 10 - 4

    def test_a_clock_that_goes_back_lets_nobody_through_twice(self):
        grant = make_grant(limit=2)
        assert is_let_through(grant, NOON_S + 100)
        assert is_let_through(grant, NOON_S + 50)
        assert not is_let_through(grant, NOON_S + 50)
        assert not is_let_through(grant, NOON_S + 3650)

    def test_a_clock_that_was_wrong_by_years_does_not_lock_a_key_out(self):
        grant = make_grant(limit=1)
        assert is_let_through(grant, NOON_S + 10 * 365 * 86400)
        assert is_let_through(grant, NOON_S)

    def test_a_keys_memory_is_bounded_and_is_freed(self):
        grant = make_grant(limit=100_000)
        for second in range(0, 12_000, 4):
            charge(grant, now_s=NOON_S + second)
        assert redis_client().hlen("yt:limit:aaaaaaaa") <= 361 + 3
        assert 3600 < redis_client().ttl("yt:limit:aaaaaaaa") <= 3620

    @hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(1, 6), st.lists(st.integers(0, 900), min_size=1, max_size=80))
    def test_never_more_than_the_limit_in_any_hour_and_no_slot_is_lost(self, limit, gaps_s):
        redis_client().flushdb()
        grant = make_grant(limit=limit)
        now_s, let_through = NOON_S, []
        for gap_s in gaps_s:
            now_s += gap_s + 0.25
            if is_let_through(grant, now_s):
                let_through.append(now_s)
            else:
                recent = len(let_through) - bisect_right(let_through, now_s - 3610)
                assert recent >= limit, "refused though a slot was free for ten seconds"
        for index, first_s in enumerate(let_through):
            assert bisect_right(let_through, first_s + 3600) - index <= limit

    def test_exactly_the_limit_gets_through_many_threads(self):
        outcomes = self.run_threads(make_grant(limit=100), threads=16, each=20)
        assert outcomes == 100

    @staticmethod
    def run_threads(grant: KeyGrant, *, threads: int, each: int) -> int:
        let_through: list[int] = []

        def work() -> None:
            for _ in range(each):
                try:
                    charge(grant)
                except RateLimited:
                    continue
                let_through.append(1)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return len(let_through)

    def test_exactly_the_limit_gets_through_several_processes(self):
        program = (
            "import django; django.setup(); import sys; from tests.keys.test_limits import TestCharge, make_grant;"
            "print('ready', flush=True); sys.stdin.readline();"
            "print(*(TestCharge.run_threads(grant, threads=4, each=25) for grant in"
            " (make_grant(limit=150), make_grant(limit=999, per_day=70, bytes_per_day=9, prefix='bbbbbbbb'))))"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        let_through = [[int(n) for n in process.communicate(timeout=60)[0].split()] for process in processes]
        assert [sum(counts) for counts in zip(*let_through, strict=True)] == [150, 70]

    def test_redis_own_clock_decides_when_no_time_is_given(self):
        before = redis_client().time()[0]
        charge(make_grant())
        bucket = int(redis_client().hget("yt:limit:aaaaaaaa", "newest"))
        assert before // 10 <= bucket <= redis_client().time()[0] // 10

    def test_a_redis_that_lost_its_scripts_is_given_the_script_again(self):
        charge(make_grant())
        redis_client().script_flush()
        assert charge(make_grant()).remaining == 3


class TestLimitsOfADay:
    def test_a_day_counts_beside_the_hour_and_the_tighter_one_is_told(self):
        grant = make_grant(limit=3, per_day=4)
        assert [charge(grant, now_s=NOON_S + n).remaining for n in range(3)] == [2, 1, 0]
        with pytest.raises(RateLimited) as refused:
            charge(grant, now_s=NOON_S + 3)
        assert (refused.value.code, refused.value.limit_state.limit) == ("rate_limited", 3)
        state = charge(grant, now_s=NOON_S + 3610)
        assert (state.kind, state.limit, state.remaining) == ("day", 4, 0)
        with pytest.raises(QuotaExceeded) as refused:
            charge(grant, now_s=NOON_S + 3611)
        state = refused.value.limit_state
        assert (refused.value.code, state.kind, state.limit, state.remaining) == ("quota_exceeded", "day", 4, 0)
        assert refused.value.headers["RateLimit-Limit"] == "4"
        assert 86_400 - 3611 <= refused.value.retry_after_s <= 86_400 + 300

    def test_a_slot_of_the_day_is_not_free_early_and_free_at_most_five_minutes_late(self):
        grant = make_grant(limit=100, per_day=1)
        at_s = NOON_S - NOON_S % 300 + 299
        assert is_let_through(grant, at_s)
        for later_s in (86_399, 86_400, 86_400.9):
            assert not is_let_through(grant, at_s + later_s)
        assert is_let_through(grant, at_s + 86_401)

    def test_what_one_window_refuses_no_window_counts(self):
        grant = make_grant(limit=1, per_day=3)
        assert is_let_through(grant, NOON_S)
        for second in range(1, 50):
            assert not is_let_through(grant, NOON_S + second)
        assert [is_let_through(grant, NOON_S + hours * 3610) for hours in (1, 2, 3)] == [True, True, False]

    def test_the_window_that_refuses_longest_is_named(self):
        grant = make_grant(limit=1, per_day=1)
        assert is_let_through(grant, NOON_S)
        with pytest.raises(QuotaExceeded) as refused:
            charge(grant, now_s=NOON_S + 1)
        assert refused.value.retry_after_s > 80_000

    def test_a_request_needs_a_byte_to_be_left_but_takes_none(self):
        grant = make_grant(limit=10, bytes_per_day=1000)
        for _ in range(3):
            assert (charge(grant).kind, redis_client().exists("yt:limit:aaaaaaaa:bytes")) == ("hour", 0)
        bucket = int(redis_client().time()[0]) // 300
        redis_client().hset("yt:limit:aaaaaaaa:bytes", mapping={"total": 1000, "newest": bucket, bucket: 1000})
        with pytest.raises(QuotaExceeded) as refused:
            charge(grant)
        assert (refused.value.limit_state.kind, refused.value.limit_state.limit) == ("bytes", 1000)
        assert charge(make_grant(limit=10, bytes_per_day=1001)).remaining == 6

    def test_many_bytes_are_counted_exactly(self):
        much = 900_000_000_000_001
        bucket = int(redis_client().time()[0]) // 300
        redis_client().hset("yt:limit:aaaaaaaa:bytes", mapping={"total": much, "newest": bucket, bucket: much})
        assert is_let_through(make_grant(bytes_per_day=much + 1), 0)
        assert not is_let_through(make_grant(bytes_per_day=much), 0)

    def test_exactly_the_days_limit_gets_through_many_threads(self):
        assert TestCharge.run_threads(make_grant(limit=1000, per_day=60), threads=8, each=10) == 60

    def test_usage_tells_every_window_without_counting(self):
        grant = make_grant(limit=5, per_day=2, bytes_per_day=10)
        charge(grant)
        for _ in range(2):
            assert [(state.kind, state.limit, state.remaining) for state in limits.usage(grant)] == [
                ("hour", 5, 4),
                ("day", 2, 1),
                ("bytes", 10, 10),
            ]
        assert tightest(usage(grant)).kind == "day"


class TestPeek:
    def test_tells_without_counting(self):
        grant = make_grant(limit=5)
        assert tightest(usage(grant)) == limits.LimitState(kind=limits.WindowKind.HOUR, limit=5, remaining=5, reset_s=0)
        charge(grant)
        charge(grant)
        before = redis_client().time()[0]
        seen, again = tightest(usage(grant)), tightest(usage(grant))
        passed_s = redis_client().time()[0] - before
        assert (seen.remaining, again.remaining) == (3, 3)
        assert 3600 - passed_s - 11 <= again.reset_s <= seen.reset_s <= 3610


class TestRedisAway:
    @pytest.fixture(autouse=True)
    def _no_redis(self, settings, monkeypatch):
        redis_client.cache_clear()
        services = settings.SERVICES.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        with monkeypatch.context() as patch:
            patch.setattr(settings, "SERVICES", services)
            yield
        redis_client.cache_clear()

    def test_is_asked_again_only_after_a_while(self, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(redis_loss, "time", clock)
        asked = []

        def refused(*_):
            asked.append(1)
            raise RedisConnectionError

        monkeypatch.setattr(limits, "_evaluate", refused)
        for ahead_s, count in ((0, 1), (0, 1), (redis_loss.REDIS_PAUSE_S - 0.01, 1), (redis_loss.REDIS_PAUSE_S, 2)):
            clock.ahead_s = ahead_s
            charge(make_grant(limit=100))
            assert len(asked) == count

    def test_each_process_limits_by_itself_to_its_share(self, settings):
        share = 10 // settings.ENV.web_workers
        grant = make_grant(limit=10)
        assert [charge(grant).remaining for _ in range(share)] == list(reversed(range(share)))
        with pytest.raises(RateLimited) as refused:
            charge(grant)
        assert 3500 <= refused.value.retry_after_s <= 3610

    def test_a_redis_that_comes_and_goes_gives_nobody_their_share_again(self, settings, monkeypatch):
        share = 10 // settings.ENV.web_workers
        for _ in range(share):
            charge(make_grant(limit=10))
        monkeypatch.setattr(limits, "health", redis_loss.RedisHealth())  # it was back for a while
        with pytest.raises(RateLimited):
            charge(make_grant(limit=10))

    def test_the_day_and_the_bytes_as_well(self, settings):
        workers = settings.ENV.web_workers
        grant = make_grant(limit=100 * workers, per_day=2 * workers, bytes_per_day=5 * workers)
        assert [charge(grant).remaining for _ in range(2)] == [1, 0]
        with pytest.raises(QuotaExceeded) as refused:
            charge(grant)
        assert 86_000 <= refused.value.retry_after_s <= 86_700

    def test_failed_callers_are_limited_too(self):
        for _ in range(limits.FAILURES_PER_MINUTE):
            charge_failure("192.0.2.1")
        with pytest.raises(RateLimited):
            charge_failure("192.0.2.1")

    def test_usage_reads_as_unused(self):
        assert tightest(usage(make_grant(limit=3))).remaining == 3


class TestChargeFailure:
    def test_limits_one_address_and_leaves_others_alone(self):
        for _ in range(limits.FAILURES_PER_MINUTE):
            charge_failure("192.0.2.1")
        with pytest.raises(RateLimited) as refused:
            charge_failure("192.0.2.1")
        assert 1 <= refused.value.retry_after_s <= 61
        charge_failure("192.0.2.2")

    def test_counts_ipv6_by_its_64_bit_network_and_mapped_ipv4_as_ipv4(self):
        for number in range(limits.FAILURES_PER_MINUTE):
            charge_failure(f"2001:db8::{number:x}")
        with pytest.raises(RateLimited):
            charge_failure("2001:db8::ffff:ffff")
        charge_failure("2001:db8:0:1::1")
        assert limits.network_of("::ffff:192.0.2.7") == "192.0.2.7"
        assert limits.network_of("fe80::1%eth0") == "fe80::/64"

    def test_an_address_that_is_none_is_counted_as_one(self):
        assert {limits.network_of(address) for address in ("", "unix:", "x" * 500)} == {"unknown"}


class TestLimitHeaders:
    def test_names_limit_remaining_and_reset(self):
        state = limits.LimitState(kind=limits.WindowKind.HOUR, limit=10, remaining=4, reset_s=77)
        assert json.dumps(limit_headers(state)) == (
            '{"RateLimit-Limit": "10", "RateLimit-Remaining": "4", "RateLimit-Reset": "77"}'
        )


class TestLocalLimiter:
    def test_forgets_the_names_used_longest_ago(self, monkeypatch):
        monkeypatch.setattr("apps.keys.local_limits.MAX_NAMES", 3)
        limiter = LocalLimiter()
        names = [str(number) for number in range(10)]
        random.Random(1).shuffle(names)
        for name in names:
            window = Window(kind=WindowKind.REFUSED, name=name, limit=1, window_s=60, bucket_s=10)
            limiter.decide((window,))
        assert list(limiter._counts) == names[-3:]
