"""The chain of sources and its circuit breakers, with sources that do as they are told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.core.errors import (
    AgeRestricted,
    ApiError,
    BotCheck,
    DrmProtected,
    GeoBlocked,
    LiveNotSupported,
    NotReady,
    QualityUnavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    VideoPrivate,
    VideoUnavailable,
)
from apps.downloads.providers.base import FetchPlan, RemoteFile, VideoInfo
from apps.downloads.providers.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, LONGEST_PAUSE_S, CircuitBreaker
from apps.downloads.providers.chain import ProviderChain
from apps.downloads.providers.failures import OwnQueueFull
from apps.telegram_cache.documents import AssetKey

ID = "dQw4w9WgXcQ"
KEY = AssetKey(ID, "audio", "m4a")
UPSTREAM = [UpstreamError, UpstreamUnreachable, UpstreamTimeout, BotCheck]
CONTENT = [VideoUnavailable, VideoPrivate, AgeRestricted, GeoBlocked, LiveNotSupported, DrmProtected]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A provider that gives what ``does`` says: an exception, or None for a good answer."""

    def __init__(
        self, name: str, does: Exception | None = None, takes_s: float = 0.0, clock: Clock | None = None
    ) -> None:
        self.name = name
        self.does = does
        self.takes_s = takes_s
        self.clock = clock
        self.calls: list[tuple[str, float, bool]] = []

    def _act(self, what: str, timeout_s: float, fresh: bool = False) -> None:
        self.calls.append((what, timeout_s, fresh))
        if self.clock is not None:
            self.clock.now += min(self.takes_s, timeout_s)
        if self.does is not None:
            raise self.does

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo:
        self._act("resolve", timeout_s)
        return VideoInfo(video_id=video_id, provider=self.name, title="t")

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        self._act("plan", timeout_s, fresh)
        file = RemoteFile(url=f"https://example.com/{len(self.calls)}", source_id=self.name)
        return FetchPlan(key=key, provider=self.name, files=(file,), finish="direct", container="m4a", mime="audio/mp4")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., ProviderChain]:
    return lambda *sources: ProviderChain(sources, clock=clock)


class TestResolve:
    def test_the_first_source_answers(self, make: Callable[..., ProviderChain]) -> None:
        first, second = Source("a"), Source("b")
        assert make(first, second).resolve(ID, timeout_s=10).provider == "a"
        assert not second.calls

    @pytest.mark.parametrize("error", [*UPSTREAM, QualityUnavailable])
    def test_the_next_one_takes_over(self, make: Callable[..., ProviderChain], error: type[ApiError]) -> None:
        assert make(Source("a", error()), Source("b")).resolve(ID, timeout_s=10).provider == "b"

    @pytest.mark.parametrize("error", CONTENT)
    def test_a_content_error_stops_the_chain(self, make: Callable[..., ProviderChain], error: type[ApiError]) -> None:
        second = Source("b")
        with pytest.raises(error):
            make(Source("a", error()), second).resolve(ID, timeout_s=10)
        assert not second.calls

    def test_a_fault_in_one_source_does_not_take_the_next_ones_turn(self, make: Callable[..., ProviderChain]) -> None:
        assert make(Source("a", ZeroDivisionError()), Source("b")).resolve(ID, timeout_s=10).provider == "b"
        with pytest.raises(UpstreamError):
            make(Source("a", ZeroDivisionError())).resolve(ID, timeout_s=10)

    def test_a_full_queue_of_our_own_does_not_count_against_a_source(self, make: Callable[..., ProviderChain]) -> None:
        chain = make(Source("a", OwnQueueFull()), Source("b"))
        for _ in range(FAILURES_TO_OPEN):
            assert chain.resolve(ID, timeout_s=10).provider == "b"
        assert not chain._members[0].breaker.is_open

    def test_the_most_telling_failure_is_raised(self, make: Callable[..., ProviderChain]) -> None:
        with pytest.raises(BotCheck):
            make(Source("a", UpstreamUnreachable()), Source("b", BotCheck())).resolve(ID, timeout_s=10)
        with pytest.raises(UpstreamError):
            make(Source("a", UpstreamError()), Source("b", UpstreamUnreachable())).resolve(ID, timeout_s=10)

    def test_says_when_nothing_is_configured(self, make: Callable[..., ProviderChain]) -> None:
        with pytest.raises(NotReady):
            make().resolve(ID, timeout_s=10)

    def test_a_slow_source_leaves_time_for_the_next(self, make: Callable[..., ProviderChain], clock: Clock) -> None:
        slow, last = Source("a", UpstreamTimeout(), takes_s=99, clock=clock), Source("b")
        assert make(slow, last).resolve(ID, timeout_s=10).provider == "b"
        assert slow.calls[0][1] == pytest.approx(6.0)
        assert last.calls[0][1] == pytest.approx(4.0)

    def test_the_total_time_is_kept(self, make: Callable[..., ProviderChain], clock: Clock) -> None:
        sources = [Source(name, UpstreamTimeout(), takes_s=99, clock=clock) for name in "abc"]
        with pytest.raises(UpstreamTimeout):
            make(*sources).resolve(ID, timeout_s=10)
        assert clock.now == pytest.approx(1010.0)


class TestPlans:
    def test_offers_come_one_source_at_a_time(self, make: Callable[..., ProviderChain]) -> None:
        first, second = Source("a"), Source("b")
        offers = make(first, second).plans(KEY, timeout_s=10)
        turns = iter(offers)
        for name in ("a", "b"):
            offer = next(turns)
            assert (offer.plan.provider, len(second.calls)) == (name, int(name == "b"))
            offer.failed(UpstreamTimeout())
        with pytest.raises(UpstreamTimeout):
            next(turns)
        assert [failure.as_document()["code"] for failure in offers.failures] == ["upstream_timeout"] * 2

    def test_quality_is_unavailable_only_when_every_source_lacks_it(self, make: Callable[..., ProviderChain]) -> None:
        with pytest.raises(QualityUnavailable):
            list(make(Source("a", QualityUnavailable()), Source("b", QualityUnavailable())).plans(KEY, timeout_s=10))
        with pytest.raises(UpstreamError):
            list(make(Source("a", QualityUnavailable()), Source("b", UpstreamError())).plans(KEY, timeout_s=10))

    def test_a_content_error_stops_them(self, make: Callable[..., ProviderChain]) -> None:
        with pytest.raises(VideoPrivate):
            next(iter(make(Source("a", VideoPrivate()), Source("b")).plans(KEY, timeout_s=10)))

    def test_an_offer_is_renewed_by_the_same_source(self, make: Callable[..., ProviderChain]) -> None:
        source = Source("a")
        offer = next(iter(make(source).plans(KEY, timeout_s=10)))
        before = offer.plan.files[0].url
        assert offer.renew(timeout_s=5).files[0].url != before
        assert source.calls[-1] == ("plan", 5, True)

    def test_who_failed_why_is_kept(self, make: Callable[..., ProviderChain]) -> None:
        offers = make(Source("a", BotCheck()), Source("b")).plans(KEY, timeout_s=10)
        next(iter(offers))
        assert [(failure.provider, failure.error.code) for failure in offers.failures] == [("a", "bot_check")]


class TestBreakers:
    def fail(self, chain: ProviderChain, times: int) -> None:
        for _ in range(times):
            chain.resolve(ID, timeout_s=10)

    def test_a_failing_source_is_skipped_after_a_while(self, make: Callable[..., ProviderChain], clock: Clock) -> None:
        bad = Source("a", UpstreamError())
        chain = make(bad, Source("b"))
        self.fail(chain, FAILURES_TO_OPEN + 3)
        assert len(bad.calls) == FAILURES_TO_OPEN
        clock.now += FIRST_PAUSE_S
        self.fail(chain, 3)
        assert len(bad.calls) == FAILURES_TO_OPEN + 1  # one trial
        clock.now += FIRST_PAUSE_S
        self.fail(chain, 1)
        assert len(bad.calls) == FAILURES_TO_OPEN + 1  # the pause has grown
        clock.now += FIRST_PAUSE_S
        bad.does = None
        assert chain.resolve(ID, timeout_s=10).provider == "a"
        assert chain.resolve(ID, timeout_s=10).provider == "a"

    @pytest.mark.parametrize("error", [*CONTENT, QualityUnavailable])
    def test_what_the_video_is_to_blame_for_does_not_count(
        self, make: Callable[..., ProviderChain], error: type[ApiError]
    ) -> None:
        source = Source("a", error())
        chain = make(source)
        for _ in range(3 * FAILURES_TO_OPEN):
            with pytest.raises(error):
                chain.resolve(ID, timeout_s=10)
        assert len(source.calls) == 3 * FAILURES_TO_OPEN

    def test_bytes_that_cannot_be_had_count_though_the_plans_are_fine(self, make: Callable[..., ProviderChain]) -> None:
        source, other = Source("a"), Source("b")
        chain = make(source, other)
        for _ in range(FAILURES_TO_OPEN):
            next(iter(chain.plans(KEY, timeout_s=10))).failed(UpstreamError())
        assert next(iter(chain.plans(KEY, timeout_s=10))).plan.provider == "b"

    def test_a_renewal_that_fails_counts_once(self, make: Callable[..., ProviderChain]) -> None:
        source = Source("one")
        chain = make(source)
        for _ in range(FAILURES_TO_OPEN - 1):
            source.does = None
            offer = next(iter(chain.plans(KEY, timeout_s=5)))
            source.does = UpstreamError()
            with pytest.raises(UpstreamError) as caught:
                offer.renew(timeout_s=5)
            offer.failed(caught.value)
        assert not chain._members[0].breaker.is_open

    def test_a_success_starts_the_count_again(self, make: Callable[..., ProviderChain]) -> None:
        source, other = Source("a"), Source("b")
        chain = make(source, other)
        for _ in range(3):
            source.does = UpstreamError()
            self.fail(chain, FAILURES_TO_OPEN - 1)
            source.does = None
            self.fail(chain, 1)
        assert not other.calls[3 * (FAILURES_TO_OPEN - 1) :]

    def test_when_nothing_else_is_left_one_caller_tries_at_once(self, make: Callable[..., ProviderChain]) -> None:
        only = Source("a", UpstreamUnreachable())
        chain = make(only)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(UpstreamUnreachable):
                chain.resolve(ID, timeout_s=10)
        only.does = None
        assert chain.resolve(ID, timeout_s=10).provider == "a"

    def test_a_skipped_source_is_named_with_its_last_error(self, make: Callable[..., ProviderChain]) -> None:
        chain = make(Source("a", BotCheck()), Source("b"))
        self.fail(chain, FAILURES_TO_OPEN)
        offers = chain.plans(KEY, timeout_s=10)
        assert next(iter(offers)).plan.provider == "b"
        assert [(failure.error.code, failure.skipped) for failure in offers.failures] == [("bot_check", True)]

    def test_only_one_of_many_threads_gets_the_trial(self, clock: Clock) -> None:
        breaker = CircuitBreaker(clock=clock)
        for _ in range(FAILURES_TO_OPEN):
            breaker.record_failure()
        assert not breaker.may_try()
        clock.now += FIRST_PAUSE_S
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: breaker.may_try(), range(64))) == 1

    def test_the_pause_grows_to_a_limit(self, clock: Clock) -> None:
        breaker = CircuitBreaker(clock=clock)
        for _ in range(FAILURES_TO_OPEN):
            breaker.record_failure()
        pauses = [breaker.pause_left_s]
        for _ in range(12):
            clock.now += pauses[-1]
            assert breaker.may_try()
            breaker.record_failure()
            pauses.append(breaker.pause_left_s)
        assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
        assert pauses[-1] == LONGEST_PAUSE_S
        breaker.record_success()
        assert breaker.may_try()

    def test_many_failures_at_once_do_not_lengthen_the_pause(self, clock: Clock) -> None:
        breaker = CircuitBreaker(clock=clock)
        for _ in range(200):
            breaker.record_failure()
        assert breaker.pause_left_s == FIRST_PAUSE_S

    def test_a_trial_that_never_reports_is_forgotten(self, clock: Clock) -> None:
        breaker = CircuitBreaker(clock=clock)
        for _ in range(FAILURES_TO_OPEN):
            breaker.record_failure()
        clock.now += FIRST_PAUSE_S
        assert breaker.may_try()
        assert not breaker.may_try()
        clock.now += 61
        assert breaker.may_try()
