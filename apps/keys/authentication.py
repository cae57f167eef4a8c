"""Who is calling: from a raw API key to what it may do."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from apps.core.addresses import IpNetwork, is_allowed_private
from apps.core.errors import IpNotAllowed, KeyDisabled, KeyExpired, KeyInvalid, KeyMissing
from apps.keys.grants import KeyGrant
from apps.keys.key_cache import NOBODY, KeyRecord, key_cache
from apps.keys.people import PERSON_PATTERN

KEY_PATTERN = re.compile(r"yt_(?P<prefix>[A-Za-z0-9]{8})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)


def forget_cached_keys() -> None:
    """Ask MongoDB again at the next use of any key, in this process."""
    key_cache().forget()


def read_keys(prefixes: Collection[str]) -> None:
    """Have these keys by heart, for ``authenticate_by_heart``: one read of MongoDB for all of them, none for those that
    are and are not ageing. Raises what MongoDB raises."""
    key_cache().read(prefixes)


def is_ageing(prefix: str) -> bool:
    """Whether it is time for ``read_keys``, so that nobody will have to wait for this key."""
    return key_cache().is_ageing(prefix)


def prefix_of(raw: str) -> str | None:
    """The prefix of what looks like a key; None for anything else."""
    match = KEY_PATTERN.fullmatch(raw)
    return None if match is None else match["prefix"]


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

    An unknown prefix and a wrong secret give the same error in the same time. Answers may be
    ``key_cache.MAX_AGE_S`` old. A key that is bound to networks is refused when ``client_address`` is not told.
    """
    if not raw:
        raise KeyMissing
    match = KEY_PATTERN.fullmatch(raw)
    if match is None:
        raise KeyInvalid
    record = key_cache().get(match["prefix"]) or NOBODY
    if not record.takes(hash_secret(match["secret"])):
        raise KeyInvalid
    grant = _usable(record)
    if not is_let_in(grant, client_address):
        raise IpNotAllowed
    return grant


def authenticate_by_heart(raw: str, client_address: str) -> KeyGrant | None:
    """What ``authenticate`` gives, for the event loop: from memory alone. None: it would refuse, or ask MongoDB."""
    record = key_cache().by_heart(raw[3:11])
    if record is None or raw[:3] != "yt_" or raw[11:12] != "_" or not record.takes(hash_secret(raw[12:])):
        return None
    grant = _usable_or_none(record)
    return grant if grant is not None and is_let_in(grant, client_address) else None


def grant_by_heart(prefix: str) -> KeyGrant | None:
    """What ``grant_for_prefix`` gives, for the event loop: from memory alone. None: it would refuse, or ask MongoDB."""
    record = key_cache().by_heart(prefix)
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


def grant_for_prefix(prefix: str, *, max_age_s: float | None = None) -> KeyGrant:
    """The grant of the key (or the person of the admin) that signed a link. Raises KeyInvalid, KeyDisabled or
    KeyExpired; fresh as authenticate.

    A key's networks do not bind its links: those are opened by other people. ``bind_links`` does.
    """
    is_prefix = re.fullmatch(r"[A-Za-z0-9]{8}", prefix, re.ASCII) or PERSON_PATTERN.fullmatch(prefix)
    record = key_cache().get(prefix, max_age_s=max_age_s) if is_prefix else None
    if record is None:
        raise KeyInvalid
    return _usable(record)


def grant_of_any_key(prefix: str) -> KeyGrant | None:
    """The grant of a key as it is, also when it was switched off or has expired: only to hold its limits, never to let
    anybody in. None for an unknown one."""
    record = key_cache().get(prefix) if prefix else None
    return None if record is None else record.grant


def _usable_or_none(record: KeyRecord) -> KeyGrant | None:
    try:
        return _usable(record)
    except (KeyDisabled, KeyExpired):
        return None


def _usable(record: KeyRecord) -> KeyGrant:
    if not record.active:
        raise KeyDisabled
    expires_at = record.grant.expires_at
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise KeyExpired
    return record.grant
