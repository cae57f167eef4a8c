"""What MongoDB says about keys, kept for a moment: known and unknown ones, read one by one or many at a time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pymongo.errors import NetworkTimeout

from apps.core.tunables import limit_per_hour
from apps.keys.documents import LIMIT_NAMES, Scope
from apps.keys.grants import KeyGrant
from apps.keys.people import PERSON_PATTERN, find_person
from apps.keys.selectors import key_rows, user_rows

MAX_AGE_S = 0.8  # a revoked key stops in every process within one second
AGEING_S = 0.5  # a key that is used all the time is read again by then, so that nobody waits for it
MAX_KNOWN = 20_000
MAX_UNKNOWN = 5_000
LOAD_TIMEOUT_S = 35.0
_NOBODY_SHA256 = hashlib.sha256(b"nobody's secret").hexdigest()


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key as it is stored."""

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


NOBODY = KeyRecord(
    grant=KeyGrant(prefix="", name="", owner="", scopes=frozenset()),
    secret_sha256=_NOBODY_SHA256,
    old_secret_sha256=_NOBODY_SHA256,
    old_secret_until=None,
    active=False,
)
"""An unknown key's secret is compared with this one's, in the same time; no secret has this form."""


@dataclass(frozen=True, kw_only=True)
class _Flight:
    started_at: float
    future: Future[KeyRecord | None]


def _load(prefixes: Collection[str], *, skip_broken: bool = False) -> dict[str, KeyRecord | None]:
    """Each of them, None for an unknown one: one read of keys, and one of their owners. People of the admin are asked
    for one by one. ``skip_broken``: a key that somebody wrote in a form that cannot be read is left out."""
    people = [prefix for prefix in prefixes if PERSON_PATTERN.fullmatch(prefix)]
    keys = key_rows(prefixes) if len(people) < len(prefixes) else []
    owners = {key["owner"] for key in keys if key.get("owner")}
    users = {user["username"]: user for user in user_rows(owners)} if owners else {}
    records: dict[str, KeyRecord | None] = dict.fromkeys(prefixes)
    records.update((prefix, _load_person(prefix)) for prefix in people)
    for key in keys:
        try:
            records[key["prefix"]] = _record_of(key, users.get(key.get("owner") or ""))
        except (KeyError, TypeError, ValueError):
            if not skip_broken:
                raise
            del records[key["prefix"]]
    return records


def _record_of(key: Mapping[str, Any], user: Mapping[str, Any] | None) -> KeyRecord:
    grant = KeyGrant(
        prefix=key["prefix"],
        name=key["name"],
        owner=key.get("owner") or "",
        scopes=frozenset(key.get("scopes") or ()),
        expires_at=key.get("expires_at"),
        allowed_networks=tuple(ipaddress.ip_network(cidr) for cidr in key.get("allowed_cidrs") or ()),
        bind_links=bool(key.get("bind_links")),
        **effective_limits(key, user or {}),
    )
    return KeyRecord(
        grant=grant,
        secret_sha256=key["secret_sha256"],
        old_secret_sha256=key.get("old_secret_sha256") or _NOBODY_SHA256,
        old_secret_until=key.get("old_secret_until"),
        active=bool(key.get("active", True)) and (user is None or bool(user.get("active", True))),
    )


def _load_person(prefix: str) -> KeyRecord | None:
    """Somebody of the admin, for the links that its pages made for them. There is no secret: no request is let in."""
    person = find_person(prefix)
    if person is None:
        return None
    grant = KeyGrant(prefix=prefix, name=person.username, owner=person.username, scopes=frozenset({Scope.MEDIA.value}))
    return replace(NOBODY, grant=grant, active=True)


def effective_limits(key: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that hold for a key: its own, else its user's, else the default. None: no limit."""
    limits: dict[str, Any] = {}
    for name in LIMIT_NAMES:
        own = key.get(name)
        value = own if own is not None else user.get(name)
        limits[name] = value or None
    limits["limit_per_hour"] = limits["limit_per_hour"] or limit_per_hour()
    return limits


class KeyCache:
    """What MongoDB said about prefixes in the last MAX_AGE_S, known and unknown ones in separate, bounded parts.

    Simultaneous questions about one prefix are one read. Ages count from before the read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, KeyRecord]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._flights: dict[str, _Flight] = {}

    def get(self, prefix: str, *, max_age_s: float | None = None) -> KeyRecord | None:
        """The record of ``prefix``, as it was at most ``max_age_s`` (else MAX_AGE_S) ago. Raises what MongoDB
        raises."""
        now = time.monotonic()
        age_s = MAX_AGE_S if max_age_s is None else max_age_s
        with self._lock:
            known = self._known.get(prefix)
            if known is not None and now - known[0] < age_s:
                return known[1]
            if self._is_unknown(prefix, now, age_s):
                return None
            flight = self._flights.get(prefix)
            leads = flight is None or now - flight.started_at >= age_s
            if flight is None or leads:
                flight = self._flights[prefix] = _Flight(started_at=now, future=Future())
        if not leads:
            try:
                return flight.future.result(timeout=LOAD_TIMEOUT_S)
            except TimeoutError:
                raise NetworkTimeout("MongoDB did not answer in time") from None
        return self._lead(prefix, flight)

    def by_heart(self, prefix: str) -> KeyRecord | None:
        """What ``get`` would give from memory. Needs no lock."""
        known = self._known.get(prefix)
        return known[1] if known is not None and time.monotonic() - known[0] < MAX_AGE_S else None

    def is_ageing(self, prefix: str) -> bool:
        """Whether it is time for another look at a key that is known by heart."""
        known = self._known.get(prefix)
        return known is not None and time.monotonic() - known[0] >= AGEING_S

    def read(self, prefixes: Collection[str]) -> None:
        """Have all of these by heart, with one read for those that are not, or are ageing. Raises what MongoDB
        raises."""
        now = time.monotonic()
        with self._lock:
            wanted = {
                prefix
                for prefix in prefixes
                if (self.by_heart(prefix) is None or self.is_ageing(prefix))
                and not self._is_unknown(prefix, now, MAX_AGE_S)
            }
        if wanted:
            records = _load(wanted, skip_broken=True)
            with self._lock:
                for prefix, record in records.items():
                    self._keep(prefix, record, now)

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self._unknown.clear()

    def _is_unknown(self, prefix: str, now: float, max_age_s: float) -> bool:
        read_at = self._unknown.get(prefix)
        return read_at is not None and now - read_at < max_age_s

    def _lead(self, prefix: str, flight: _Flight) -> KeyRecord | None:
        try:
            record = _load([prefix])[prefix]
        except BaseException as error:
            self._land(prefix, flight)
            flight.future.set_exception(error)
            raise
        with self._lock:
            self._keep(prefix, record, flight.started_at)
        self._land(prefix, flight)
        flight.future.set_result(record)
        return record

    def _keep(self, prefix: str, record: KeyRecord | None, read_at: float) -> None:
        known = self._known.get(prefix)
        if (known is not None and known[0] > read_at) or self._unknown.get(prefix, read_at) > read_at:
            return  # what is here was read later
        if record is None:
            self._known.pop(prefix, None)
            self._unknown[prefix] = read_at
            self._unknown.move_to_end(prefix)
            if len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)
        else:
            self._unknown.pop(prefix, None)
            self._known[prefix] = (read_at, record)
            self._known.move_to_end(prefix)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def _land(self, prefix: str, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(prefix) is flight:
                del self._flights[prefix]


@cache
def key_cache() -> KeyCache:
    """The one of this process."""
    return KeyCache()
