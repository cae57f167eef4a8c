"""Who is calling: from a raw API key to what it may do."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

from apps.core.addresses import IpNetwork, is_allowed_private
from apps.core.errors import IpNotAllowed, KeyDisabled, KeyExpired, KeyInvalid, KeyMissing
from apps.core.tunables import limit_per_hour
from apps.keys.documents import DEFAULT_LIMIT_PER_HOUR, LIMIT_NAMES, ApiKey, Scope, User
from apps.keys.people import PERSON_PATTERN, find_person
from apps.keys.selectors import find_key, find_user
from apps.keys.windows import (
    DAY_BUCKET_S,
    DAY_S,
    HOUR_BUCKET_S,
    HOUR_S,
    Arguments,
    Window,
    WindowKind,
    window_arguments,
)

KEY_PATTERN = re.compile(r"yt_(?P<prefix>[A-Za-z0-9]{8})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)
CACHE_MAX_AGE_S = 0.8  # a revoked key stops in every process within one second
MAX_KNOWN = 20_000
MAX_UNKNOWN = 5_000
LOAD_TIMEOUT_S = 35.0
_NOBODY_SHA256 = hashlib.sha256(b"nobody's secret").hexdigest()


@dataclass(frozen=True, kw_only=True)
class KeyGrant:
    """What a valid key may do. Never holds the secret."""

    prefix: str
    name: str
    owner: str
    scopes: frozenset[str]
    limit_per_hour: int = DEFAULT_LIMIT_PER_HOUR
    limit_per_day: int | None = None  # None, here and in what follows: no such limit
    bytes_per_day: int | None = None
    concurrent_streams: int | None = None
    concurrent_jobs: int | None = None
    longest_video_s: int | None = None
    largest_file_bytes: int | None = None
    allowed_networks: tuple[IpNetwork, ...] = ()  # empty: all
    bind_links: bool = False
    expires_at: datetime | None = None

    @property
    def is_authenticated(self) -> bool:
        """Django REST framework asks its users for this."""
        return True

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The limits that each request is checked against, requests in an hour first."""
        hour = Window(
            kind=WindowKind.HOUR,
            name=f"yt:limit:{self.prefix}",
            limit=self.limit_per_hour,
            window_s=HOUR_S,
            bucket_s=HOUR_BUCKET_S,
        )
        windows = [hour]
        for kind, limit, cost in ((WindowKind.DAY, self.limit_per_day, 1), (WindowKind.BYTES, self.bytes_per_day, 0)):
            if limit is not None:
                name = f"yt:limit:{self.prefix}:{kind}"
                window = Window(kind=kind, name=name, limit=limit, window_s=DAY_S, bucket_s=DAY_BUCKET_S, cost=cost)
                windows.append(window)
        return tuple(windows)

    @cached_property
    def script_arguments(self) -> Arguments:
        """``limits.script_arguments`` of this grant."""
        return window_arguments(self.windows)

    @property
    def actor(self) -> str:
        """Who this is in the audit log."""
        return f"key {self.prefix}"


@dataclass(frozen=True, kw_only=True)
class _Record:
    grant: KeyGrant
    secret_sha256: str
    old_secret_sha256: str
    old_secret_until: datetime | None
    active: bool

    def takes(self, secret_sha256: str) -> bool:
        """Whether this is the key's secret, or its last one within the grace time. Takes the same time for any."""
        is_new = hmac.compare_digest(secret_sha256, self.secret_sha256)
        is_old = hmac.compare_digest(secret_sha256, self.old_secret_sha256)
        return is_new or (is_old and self.old_secret_until is not None and self.old_secret_until > datetime.now(UTC))


_NOBODY = _Record(
    grant=KeyGrant(prefix="", name="", owner="", scopes=frozenset()),
    secret_sha256=_NOBODY_SHA256,
    old_secret_sha256=_NOBODY_SHA256,
    old_secret_until=None,
    active=False,
)  # an unknown key's secret is compared with this one's, in the same time; no secret has this form


@dataclass(frozen=True, kw_only=True)
class _Flight:
    started_at: float
    future: Future[_Record | None]


def _load(prefix: str) -> _Record | None:
    if PERSON_PATTERN.fullmatch(prefix):
        return _load_person(prefix)
    key = find_key(prefix)
    if key is None:
        return None
    user = find_user(key.owner) if key.owner else None
    limits = effective_limits(key, user)
    grant = KeyGrant(
        prefix=key.prefix,
        name=key.name,
        owner=key.owner,
        scopes=frozenset(key.scopes),
        expires_at=key.expires_at,
        allowed_networks=tuple(ipaddress.ip_network(cidr) for cidr in key.allowed_cidrs),
        bind_links=key.bind_links,
        **limits,
    )
    return _Record(
        grant=grant,
        secret_sha256=key.secret_sha256,
        old_secret_sha256=key.old_secret_sha256 or _NOBODY_SHA256,
        old_secret_until=key.old_secret_until,
        active=key.active and (user is None or user.active),
    )


def _load_person(prefix: str) -> _Record | None:
    """Somebody of the admin, for the links that its pages made for them. There is no secret: no request is let in."""
    person = find_person(prefix)
    if person is None:
        return None
    grant = KeyGrant(prefix=prefix, name=person.username, owner=person.username, scopes=frozenset({Scope.MEDIA.value}))
    return replace(_NOBODY, grant=grant, active=True)


def effective_limits(key: ApiKey, user: User | None) -> dict[str, Any]:
    """The limits that hold for a key: its own, else its user's, else the default. None: no limit."""
    limits: dict[str, Any] = {}
    for name in LIMIT_NAMES:
        own = getattr(key, name)
        value = own if own is not None else getattr(user, name, None)
        limits[name] = value or None
    limits["limit_per_hour"] = limits["limit_per_hour"] or limit_per_hour()
    return limits


class _KeyCache:
    """What MongoDB said about prefixes in the last CACHE_MAX_AGE_S, known and unknown ones in separate, bounded parts.

    Simultaneous questions about one prefix are one read. Ages count from before the read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, _Record]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._flights: dict[str, _Flight] = {}

    def get(self, prefix: str, *, max_age_s: float = CACHE_MAX_AGE_S) -> _Record | None:
        """The record of ``prefix``, as it was at most ``max_age_s`` ago. Raises what MongoDB raises."""
        now = time.monotonic()
        with self._lock:
            known = self._known.get(prefix)
            if known is not None and now - known[0] < max_age_s:
                return known[1]
            if now - self._unknown.get(prefix, -CACHE_MAX_AGE_S) < max_age_s:
                return None
            flight = self._flights.get(prefix)
            leads = flight is None or now - flight.started_at >= max_age_s
            if flight is None or leads:
                flight = self._flights[prefix] = _Flight(started_at=now, future=Future())
        if not leads:
            return flight.future.result(timeout=LOAD_TIMEOUT_S)
        return self._lead(prefix, flight)

    def by_heart(self, prefix: str) -> _Record | None:
        """What ``get`` would give from memory. Needs no lock."""
        known = self._known.get(prefix)
        return known[1] if known is not None and time.monotonic() - known[0] < CACHE_MAX_AGE_S else None

    def _lead(self, prefix: str, flight: _Flight) -> _Record | None:
        try:
            record = _load(prefix)
        except BaseException as error:
            self._land(prefix, flight)
            flight.future.set_exception(error)
            raise
        with self._lock:
            if record is None:
                self._known.pop(prefix, None)
                self._unknown[prefix] = flight.started_at
                self._unknown.move_to_end(prefix)
                if len(self._unknown) > MAX_UNKNOWN:
                    self._unknown.popitem(last=False)
            else:
                self._unknown.pop(prefix, None)
                self._known[prefix] = (flight.started_at, record)
                self._known.move_to_end(prefix)
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
        self._land(prefix, flight)
        flight.future.set_result(record)
        return record

    def _land(self, prefix: str, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(prefix) is flight:
                del self._flights[prefix]

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self._unknown.clear()


@cache
def _key_cache() -> _KeyCache:
    return _KeyCache()


def forget_cached_keys() -> None:
    """Ask MongoDB again at the next use of any key, in this process."""
    _key_cache().forget()


def extract_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The raw key of a request: X-API-Key, Authorization: Bearer, or ``?api_key=``. Header names are lower case."""
    if key := headers.get("x-api-key", "").strip():
        return key
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return query.get("api_key", "").strip() or None


def hash_secret(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def authenticate(raw: str | None, client_address: str = "") -> KeyGrant:
    """The grant of a raw key. Raises KeyMissing, KeyInvalid, KeyDisabled, KeyExpired, IpNotAllowed; and what MongoDB
    raises.

    An unknown prefix and a wrong secret give the same error in the same time. Answers may be CACHE_MAX_AGE_S old.
    A key that is bound to networks is refused when ``client_address`` is not told.
    """
    if not raw:
        raise KeyMissing
    match = KEY_PATTERN.fullmatch(raw)
    if match is None:
        raise KeyInvalid
    record = _key_cache().get(match["prefix"]) or _NOBODY
    if not record.takes(hash_secret(match["secret"])):
        raise KeyInvalid
    grant = _usable(record)
    if not is_let_in(grant, client_address):
        raise IpNotAllowed
    return grant


def authenticate_by_heart(raw: str, client_address: str) -> KeyGrant | None:
    """What ``authenticate`` gives, for the event loop: from memory alone. None: it would refuse, or ask MongoDB."""
    record = _key_cache().by_heart(raw[3:11])
    if record is None or raw[:3] != "yt_" or raw[11:12] != "_" or not record.takes(hash_secret(raw[12:])):
        return None
    grant = _usable_or_none(record)
    return grant if grant is not None and is_let_in(grant, client_address) else None


def grant_by_heart(prefix: str) -> KeyGrant | None:
    """What ``grant_for_prefix`` gives, for the event loop: from memory alone. None: it would refuse, or ask MongoDB."""
    record = _key_cache().by_heart(prefix)
    return None if record is None else _usable_or_none(record)


def is_let_in(grant: KeyGrant, client_address: str) -> bool:
    """Whether a key may be used from this address."""
    return not grant.allowed_networks or _is_in(client_address, grant.allowed_networks)


def _is_in(client_address: str, networks: tuple[IpNetwork, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client_address.partition("%")[0])
    except ValueError:
        return False
    return is_allowed_private(address, networks)


def grant_for_prefix(prefix: str, *, max_age_s: float = CACHE_MAX_AGE_S) -> KeyGrant:
    """The grant of the key (or the person of the admin) that signed a link. Raises KeyInvalid, KeyDisabled or
    KeyExpired; fresh as authenticate.

    A key's networks do not bind its links: those are opened by other people. ``bind_links`` does.
    """
    is_prefix = re.fullmatch(r"[A-Za-z0-9]{8}", prefix, re.ASCII) or PERSON_PATTERN.fullmatch(prefix)
    record = _key_cache().get(prefix, max_age_s=max_age_s) if is_prefix else None
    if record is None:
        raise KeyInvalid
    return _usable(record)


def grant_of_any_key(prefix: str) -> KeyGrant | None:
    """The grant of a key as it is, also when it was switched off or has expired: only to hold its limits, never to let
    anybody in. None for an unknown one."""
    record = _key_cache().get(prefix) if prefix else None
    return None if record is None else record.grant


def _usable_or_none(record: _Record) -> KeyGrant | None:
    try:
        return _usable(record)
    except (KeyDisabled, KeyExpired):
        return None


def _usable(record: _Record) -> KeyGrant:
    if not record.active:
        raise KeyDisabled
    expires_at = record.grant.expires_at
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise KeyExpired
    return record.grant
