"""The sources in their order: the first that can, does; a failing one is skipped for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import structlog
from django.conf import settings

from apps.core.errors import (
    ApiError,
    BotCheck,
    QualityUnavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from apps.downloads.errors import VIDEO_ERRORS
from apps.downloads.providers.arrangement import arrange_providers
from apps.downloads.providers.base import FetchPlan, MediaProvider, VideoInfo
from apps.downloads.providers.breaker import TRIAL_LASTS_S, CircuitBreaker
from apps.downloads.providers.failures import OwnQueueFull, ProviderFailure, most_telling
from apps.downloads.providers.health import note_closed, note_outcome, note_trial
from apps.downloads.stopping import WorkStopped
from apps.telegram_cache.documents import AssetKey

ABOUT_THE_VIDEO: tuple[type[ApiError], ...] = (*VIDEO_ERRORS, QualityUnavailable)
UPSTREAM_ERRORS = (UpstreamError, UpstreamUnreachable, UpstreamTimeout, BotCheck)
NO_PLAN: tuple[type[ApiError], ...] = (*UPSTREAM_ERRORS, *ABOUT_THE_VIDEO)
_SHARE_OF_TIME = 0.6  # what one source may use of the time that is left, while another one follows

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Member:
    provider: MediaProvider
    breaker: CircuitBreaker
    last_error: ApiError = field(default_factory=UpstreamError)


class PlanOffer:
    """One source's plan for an asset. Say what became of it: ``succeeded()``, or ``failed(error)`` and go on."""

    def __init__(
        self,
        chain: ProviderChain,
        member: _Member,
        plan: FetchPlan,
        failures: list[ProviderFailure],
        *,
        began_at: float,
    ) -> None:
        self._chain = chain
        self._member = member
        self._failures = failures
        self._began_at = began_at
        self._counted: ApiError | None = None  # the failed renewal that the source's breaker knows of
        self.plan = plan

    def renew(self, *, timeout_s: float) -> FetchPlan:
        """The same source's plan with new addresses (the last ones were refused). Raises as MediaProvider.plan does."""
        try:
            self.plan = self._chain.ask(
                self._member,
                lambda: self._member.provider.plan(self.plan.key, timeout_s=timeout_s, fresh=True),
                is_all=False,
            )
        except UPSTREAM_ERRORS as error:
            self._counted = error
            raise
        except VIDEO_ERRORS as error:
            self._note(error)
            raise
        return self.plan

    def succeeded(self) -> None:
        self._member.breaker.record_success()
        note_outcome(self.plan.provider, error_code="", took_s=self.took_s)
        self._tell_source(None)

    @property
    def took_s(self) -> float:
        """Seconds since this source was asked."""
        return time.monotonic() - self._began_at

    def _tell_source(self, error: ApiError | None) -> None:
        note_transfer = getattr(self._member.provider, "note_transfer", None)
        if note_transfer is not None:
            note_transfer(self.plan, error)

    def failed(self, error: ApiError) -> None:
        """The bytes could not be had. Counts against the source only when the error is an upstream one."""
        self._note(error)
        self._tell_source(error)
        if isinstance(error, UPSTREAM_ERRORS) and error is not self._counted:
            self._chain.note_failure(self._member, error, took_s=self.took_s)

    def _note(self, error: ApiError) -> None:
        self._failures.append(ProviderFailure(provider=self.plan.provider, error=error, took_s=self.took_s))


class PlanOffers:
    """Iterates over the offers, one source at a time, asked only when its turn comes.

    When nobody is left the iteration raises: QualityUnavailable when no source has the variant, else the most
    telling failure. An error about the video is raised at once. ``failures`` says who failed why, that one included.
    """

    def __init__(self, chain: ProviderChain, key: AssetKey, *, timeout_s: float) -> None:
        self.failures: list[ProviderFailure] = []
        self._offers = self._make(chain, key, timeout_s)

    def __iter__(self) -> Iterator[PlanOffer]:
        return self._offers

    def _make(self, chain: ProviderChain, key: AssetKey, timeout_s: float) -> Iterator[PlanOffer]:
        for member in chain.members_to_try(self.failures):
            began_at = time.monotonic()
            try:
                plan = chain.ask(member, lambda: member.provider.plan(key, timeout_s=timeout_s), is_all=False)  # noqa: B023 - called at once
            except NO_PLAN as error:
                took_s = time.monotonic() - began_at
                self.failures.append(ProviderFailure(provider=member.provider.name, error=error, took_s=took_s))
                if isinstance(error, VIDEO_ERRORS):
                    raise
                continue
            yield PlanOffer(chain, member, plan, self.failures, began_at=began_at)
        raise most_telling(self.failures)


class ProviderChain:
    """All configured sources. Thread-safe; one a process, so that the circuit breakers have a memory."""

    def __init__(
        self,
        providers: Sequence[MediaProvider],
        *,
        clock: Callable[[], float] = time.monotonic,
        arrange: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
    ) -> None:
        """``arrange`` gives, of the names it gets, those that are switched on, in their order at this moment."""
        self._clock = clock
        self._arrange = arrange
        self._members = [_Member(provider=provider, breaker=CircuitBreaker(clock=clock)) for provider in providers]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.provider.name for member in self._members)

    def resolve(self, video_id: str, *, timeout_s: float, with_pictures: bool = False) -> VideoInfo:
        """Metadata from the first source that answers, within ``timeout_s`` in all.

        ``with_pictures``: only sources that tell codecs and frames are asked. Raises a content error as soon as one
        source gives it, else the most telling failure of all sources; QualityUnavailable when there is none to ask.
        """
        deadline = self._clock() + timeout_s
        failures: list[ProviderFailure] = []
        members = self._arranged()
        if with_pictures:
            members = [member for member in members if getattr(member.provider, "tells_pictures", True)]
            if not members:
                raise QualityUnavailable("No source that is switched on tells codecs and frames a second.")
        for member in self.members_to_try(failures, members):
            left_s = deadline - self._clock()
            if left_s <= 0:
                failures.append(ProviderFailure(provider=member.provider.name, error=UpstreamTimeout()))
                break
            share_s = left_s if member is members[-1] else left_s * _SHARE_OF_TIME
            try:
                return self.ask(member, lambda: member.provider.resolve(video_id, timeout_s=share_s))  # noqa: B023 - called at once
            except (*UPSTREAM_ERRORS, QualityUnavailable) as error:
                failures.append(ProviderFailure(provider=member.provider.name, error=error))
        raise most_telling(failures)

    def plans(self, key: AssetKey, *, timeout_s: float) -> PlanOffers:
        """Plans for an asset, source by source; ``timeout_s`` bounds each source's planning."""
        return PlanOffers(self, key, timeout_s=timeout_s)

    def _arranged(self) -> list[_Member]:
        members = {member.provider.name: member for member in self._members}
        return [members[name] for name in self._arrange(tuple(members))]

    def members_to_try(
        self, failures: list[ProviderFailure], members: Sequence[_Member] | None = None
    ) -> Iterator[_Member]:
        """The sources in order; one that keeps failing is put down as a failure instead, unless none is left."""
        members = self._arranged() if members is None else members
        nobody_is_well = all(member.breaker.is_open for member in members)
        for member in members:
            is_trial = member.breaker.is_open
            if member.breaker.may_try(even_during_pause=nobody_is_well):
                if is_trial:
                    note_trial(member.provider.name, lasts_s=TRIAL_LASTS_S)
                yield member
            else:
                failures.append(ProviderFailure(provider=member.provider.name, error=member.last_error, skipped=True))

    def ask(self, member: _Member, question: Callable[[], T], *, is_all: bool = True) -> T:
        """Call a source, and tell its breaker how it went. Raises what MediaProvider documents, nothing else.

        ``is_all`` False: more is to come, so an answer alone does not yet show that the source is well.
        """
        began_at = time.monotonic()
        try:
            answer = question()
        except OwnQueueFull:
            log.warning("provider_queue_full", provider=member.provider.name)
            raise
        except UPSTREAM_ERRORS as error:
            self.note_failure(member, error, took_s=time.monotonic() - began_at)
            raise
        except ABOUT_THE_VIDEO:
            self._note_well(member)  # it works; the video is what is wrong
            raise
        except WorkStopped:
            raise
        except Exception as error:  # a fault in one source's code must not take the next one's turn
            log.exception("provider_fault", provider=member.provider.name)
            mapped = UpstreamError()
            self.note_failure(member, mapped)
            raise mapped from error
        if is_all:
            member.breaker.record_success()
            note_outcome(member.provider.name, error_code="", took_s=time.monotonic() - began_at)
        return answer

    def _note_well(self, member: _Member) -> None:
        was_open = member.breaker.is_open
        member.breaker.record_success()
        if was_open:
            note_closed(member.provider.name)

    def note_failure(self, member: _Member, error: ApiError, *, took_s: float = 0.0) -> None:
        member.last_error = error
        was_open = member.breaker.is_open
        member.breaker.record_failure()
        pause_s = member.breaker.pause_left_s if member.breaker.is_open else None
        note_outcome(
            member.provider.name, error_code=error.code, error_message=error.message, took_s=took_s, pause_s=pause_s
        )
        log.warning("provider_failed", provider=member.provider.name, code=error.code)
        if member.breaker.is_open and not was_open:
            log.warning("provider_paused", provider=member.provider.name, pause_s=member.breaker.pause_left_s)

    def warm(self) -> None:
        """Have the sources start what takes a while to start; returns at once. For a worker that has just begun."""
        for member in self._members:
            warm = getattr(member.provider, "warm", None)
            if warm is not None:
                warm()

    def close(self) -> None:
        """Let go of connections and child processes."""
        for member in self._members:
            close = getattr(member.provider, "close", None)
            if close is not None:
                close()


def make_providers() -> list[MediaProvider]:
    """The sources that PROVIDERS names and that are configured, in order."""
    from apps.downloads.providers.savetube import SaveTubeProvider
    from apps.downloads.providers.ytdlp import ytdlp_provider

    env = settings.ENV
    made: list[MediaProvider] = []
    for name in env.providers:
        if name == "savetube" and env.savetube_key.get_secret_value():
            made.append(
                SaveTubeProvider(
                    base_url=env.savetube_url,
                    key_hex=env.savetube_key.get_secret_value(),
                    cdn_suffixes=env.savetube_cdn_suffixes,
                )
            )
        elif name == "ytdlp":
            made.append(ytdlp_provider())
    return made


@cache
def provider_chain() -> ProviderChain:
    """The chain that the settings describe, in the operator's order; the same one for the life of the process."""
    return ProviderChain(make_providers(), arrange=arrange_providers)
