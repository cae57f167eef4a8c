"""Requests per hour and day, and room for bytes: one Redis script decides, for every process and the fast lane alike.

The fast lane runs the same script for many simultaneous requests at once, inside one of its own
(``ytserver.fast_lane.till``)::

    arguments = script_arguments(grant)   # for each request; both functions are pure
    state = read_answer(answer, grant)    # raises RateLimited, or QuotaExceeded

While Redis is away each process counts for itself, in bounded memory, with its share of the limits
(limit / WEB_WORKERS): callers go on being served and limited. With LIMITS_ON_REDIS_LOSS=deny they get ``not_ready``.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError

from apps.core.errors import QuotaExceeded, RateLimited
from apps.core.redis import redis_client
from apps.keys.grants import KeyGrant
from apps.keys.redis_loss import health, local_counts, share_of
from apps.keys.windows import SCRIPT, SCRIPT_SHA, Arguments, Window, WindowKind, WindowState, at_time, window_arguments

FAILURES_PER_MINUTE = 60
_REFUSALS = {
    WindowKind.HOUR: "This API key has used up its requests for the hour.",
    WindowKind.DAY: "This API key has used up its requests for the day.",
    WindowKind.BYTES: "This API key has used up its bytes for the day.",
}

LimitState = WindowState
"""Where a key stands, in its window with the fewest requests left; in a refusal, the window that refused."""


def script_arguments(grant: KeyGrant, *, now_s: float = 0) -> Arguments:
    """What follows EVALSHA's script hash, to count one request: the number of hashes, the hashes, the arguments.

    Made once for each grant. ``now_s`` (UNIX seconds) replaces Redis's clock in tests.
    """
    return at_time(grant.script_arguments, now_s) if now_s else grant.script_arguments


def read_answer(answer: Sequence[int], grant: KeyGrant) -> LimitState:
    """Turn the script's answer into the state. Raises RateLimited, or QuotaExceeded for a limit of the day.

    The error has the state in ``limit_state`` and the seconds to wait in ``retry_after_s``.
    """
    return _read(answer, grant.windows)


def _read(answer: Sequence[int], windows: tuple[Window, ...]) -> LimitState:
    if answer[0]:
        state = _state(windows[answer[0] - 1], answer, answer[0] - 1)
        raise refusal(state)
    state = _state(windows[0], answer, 0)
    for index in range(1, len(windows)):
        window = windows[index]
        if window.cost and window.limit - answer[2 * index + 1] < state.remaining:
            state = _state(window, answer, index)
    return state


def _state(window: Window, answer: Sequence[int], index: int) -> WindowState:
    used, frees_in_ms = answer[2 * index + 1], answer[2 * index + 2]
    return WindowState(
        kind=window.kind,
        limit=window.limit,
        remaining=max(0, window.limit - used),
        reset_s=math.ceil(frees_in_ms / 1000),
    )


def refusal(state: WindowState) -> RateLimited:
    """The error for a window that is used up."""
    kind = RateLimited if state.kind is WindowKind.HOUR else QuotaExceeded
    error = kind(_REFUSALS[state.kind], retry_after_s=state.reset_s)
    error.limit_state = state
    error.headers.update(limit_headers(state))
    return error


def _evaluate(arguments: Arguments) -> list[int]:
    client = redis_client()
    try:
        answer: Any = client.evalsha(SCRIPT_SHA, *arguments)  # type: ignore[arg-type]
    except NoScriptError:  # a Redis that was started since
        answer = client.eval(SCRIPT, *arguments)  # type: ignore[arg-type]
    return [int(number) for number in answer]


def charge(grant: KeyGrant, *, now_s: float = 0) -> LimitState:
    """Count one request of a key, atomically over all processes. Raises RateLimited or QuotaExceeded.

    ``now_s`` (UNIX seconds) replaces Redis's clock in tests. While Redis is away: ``charge_without_redis``.
    """
    if health.is_away():
        return charge_without_redis(grant)
    try:
        answer = _evaluate(script_arguments(grant, now_s=now_s))
    except RedisError:
        health.note_failure()
        return charge_without_redis(grant)
    return read_answer(answer, grant)


def charge_without_redis(grant: KeyGrant) -> LimitState:
    """``charge`` while Redis is away: this process counts alone, with its share of the limits.

    Raises NotReady when LIMITS_ON_REDIS_LOSS is ``deny``.
    """
    shares = tuple(replace(window, limit=share_of(window.limit)) for window in grant.windows)
    return _read(local_counts.decide(shares), shares)


def usage(grant: KeyGrant) -> list[WindowState]:
    """Where each window of a key stands, without counting. What Redis does not know (or cannot say) reads as unused."""
    answers: list[dict[bytes, bytes]] = [{} for _ in grant.windows]
    if not health.is_away():
        try:
            with redis_client().pipeline(transaction=False) as pipeline:
                for window in grant.windows:
                    pipeline.hgetall(window.name)
                answers = pipeline.execute()
        except RedisError:
            health.note_failure()
    return [_seen(window, fields) for window, fields in zip(grant.windows, answers, strict=True)]


def _seen(window: Window, fields: dict[bytes, bytes]) -> WindowState:
    now = time.time()
    first = int(now // window.bucket_s) - window.buckets
    counts = {int(name): int(count) for name, count in fields.items() if name.isdigit() and int(name) >= first}
    free_in_s = (min(counts) + window.buckets + 1) * window.bucket_s - now if counts else 0
    return WindowState(
        kind=window.kind,
        limit=window.limit,
        remaining=max(0, window.limit - sum(counts.values())),
        reset_s=math.ceil(free_in_s),
    )


def tightest(states: Sequence[WindowState]) -> LimitState:
    """Of what ``usage`` gives: the window of requests with the fewest left."""
    return min((state for state in states if state.kind is not WindowKind.BYTES), key=lambda state: state.remaining)


def charge_failure(client_address: str) -> None:
    """Count a request without a good key. Raises RateLimited beyond FAILURES_PER_MINUTE of one address (IPv6: a /64).

    Good keys go on working from such an address: people behind one router share it, and nobody guesses 256 bits.
    """
    network = network_of(client_address)
    windows = (
        Window(
            kind=WindowKind.REFUSED,
            name=f"yt:refused:{network}",
            limit=FAILURES_PER_MINUTE,
            window_s=60,
            bucket_s=1,
        ),
    )
    try:
        if health.is_away():
            raise redis.ConnectionError
        answer = _evaluate(window_arguments(windows))
    except RedisError:
        health.note_failure()
        answer = local_counts.decide(windows)
    if answer[0]:
        raise RateLimited(
            "Too many requests without a good API key came from your address.",
            retry_after_s=math.ceil(answer[2] / 1000),
        )


def network_of(client_address: str) -> str:
    """What counts as one caller: an IPv4 address, or the /64 that an IPv6 customer has whole."""
    try:
        address = ipaddress.ip_address(client_address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def link_binding(grant: KeyGrant, client_address: str, asked: str = "") -> str:
    """The network that a link made for this caller is bound to: the one asked for (``me``: the caller's own), else the
    caller's when the key says so, else none."""
    if asked and asked != "me":
        return network_of(asked)
    return network_of(client_address) if asked or grant.bind_links else ""


def limit_headers(state: LimitState) -> dict[str, str]:
    """The headers of every keyed answer (draft-ietf-httpapi-ratelimit-headers-06)."""
    return {
        "RateLimit-Limit": str(state.limit),
        "RateLimit-Remaining": str(state.remaining),
        "RateLimit-Reset": str(state.reset_s),
    }
