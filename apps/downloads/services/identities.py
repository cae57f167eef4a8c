"""Cookies, proxies and PO tokens for yt-dlp, as operators manage them. Secrets go in encrypted and never come out.

Who changed what is in the audit log; a change counts at the next question to YouTube, in every process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from mongoengine.errors import NotUniqueError

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.downloads.cookie_files import describe_cookies, read_cookies
from apps.downloads.documents import Identity, IdentityKind, ProxyUse
from apps.downloads.po_tokens import read_po_tokens
from apps.downloads.selectors import find_identity, list_identities

MAX_OF_A_KIND = 200
MAX_ADDRESS_CHARS = 500
SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_NAME = re.compile(r"[\w .@-]{1,64}")
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}", re.IGNORECASE | re.ASCII)
_NAMES = {
    IdentityKind.COOKIES: "are no such cookies",
    IdentityKind.PROXY: "is no such proxy",
    IdentityKind.PO_TOKEN: "are no such PO tokens",
}
REASONS = {
    "bot_check": "YouTube asked whether we are a bot",
    "rate_limited": "YouTube said: too many requests",
    "upstream_unreachable": "the proxy did not connect",
    "upstream_timeout": "no answer in time",
    "cookies_refused": "YouTube does not accept these cookies any more: export them again",
    "secret_unreadable": "the key that encrypted it is no longer in FIELD_KEYS: add it again",
}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who makes a change, for the audit log."""

    name: str
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class IdentityView:
    """What people and programs may see. ``state``: ready, resting or off. ``about`` holds no secret."""

    id: str
    kind: str
    name: str
    about: str
    use: str | None
    state: str
    resting_until: datetime | None
    strikes: int
    answers: int
    failures: int
    last_error: str
    reason: str
    last_used_at: datetime | None
    last_answer_at: datetime | None
    last_failure_at: datetime | None


def add_cookies(name: str, text: str, *, actor: Actor) -> IdentityView:
    """Keep a cookies.txt under a name; one that is there already gets the new cookies. Raises InvalidParameter."""
    return _add(IdentityKind.COOKIES, name, read_cookies(text), use=None, actor=actor)


def add_proxy(name: str, address: str, *, use: ProxyUse = ProxyUse.BOTH, actor: Actor) -> IdentityView:
    """Keep a proxy's address under a name; one that is there already gets the new address. Raises InvalidParameter."""
    return _add(IdentityKind.PROXY, name, _checked_proxy(address), use=use, actor=actor)


def add_po_tokens(name: str, text: str, *, actor: Actor) -> IdentityView:
    """Keep PO tokens under a name; those that are there already get replaced. Raises InvalidParameter."""
    tokens = read_po_tokens(text)
    bound = bool(tokens.visitor_data)
    return _add(IdentityKind.PO_TOKEN, name, tokens.as_text(), use=None, bound=bound, actor=actor)


def set_identity_enabled(identity_id: str, *, enabled: bool, kind: IdentityKind, actor: Actor) -> IdentityView:
    """Switch one on or off. Switching on also ends its rest. Idempotent. Raises NotFound."""
    before = _known(identity_id, kind)
    change: dict[str, Any] = {"set__enabled": enabled}
    if enabled:
        change |= {"set__strikes": 0, "unset__resting_until": 1}
    Identity.objects(id=identity_id).update_one(**change)
    what = "enable" if enabled else "disable"
    _record(before, what, actor, before={"enabled": before.enabled}, after={"enabled": enabled})
    return view_identity(_known(identity_id, kind))


def remove_identity(identity_id: str, *, kind: IdentityKind, actor: Actor) -> None:
    """Delete it with its secret. Raises NotFound."""
    identity = _known(identity_id, kind)
    Identity.objects(id=identity_id).delete()
    _record(identity, "remove", actor, before={"name": identity.name})


def view_identities(kind: IdentityKind) -> list[IdentityView]:
    """All of one kind, by name."""
    return [view_identity(identity) for identity in list_identities(kind)]


def view_identity(identity: Identity) -> IdentityView:
    resting = identity.resting_until if identity.resting_until and identity.resting_until > utcnow() else None
    return IdentityView(
        id=identity.id,
        kind=identity.kind,
        name=identity.name,
        about=_about(identity),
        use=identity.use if identity.kind == IdentityKind.PROXY else None,
        state="off" if not identity.enabled else "resting" if resting else "ready",
        resting_until=resting,
        strikes=identity.strikes,
        answers=identity.answers,
        failures=identity.failures,
        last_error=identity.last_error or "",
        reason=REASONS.get(identity.last_error or "", ""),
        last_used_at=identity.last_used_at,
        last_answer_at=identity.last_answer_at,
        last_failure_at=identity.last_failure_at,
    )


def _add(
    kind: IdentityKind, name: str, secret: str, *, use: ProxyUse | None, bound: bool | None = None, actor: Actor
) -> IdentityView:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidParameter("name: 1 to 64 letters, digits, spaces and . @ _ -", parameter="name")
    fresh = {
        "set__secret_encrypted": encrypt_secret(secret),
        "set__use": use.value if use else None,
        "set__bound": bound,
        "set__enabled": True,
        "set__strikes": 0,
        "set__last_error": "",
        "unset__resting_until": 1,
        "inc__version": 1,
    }
    if Identity.objects(kind=kind.value, name=name).update_one(**fresh):
        identity, what = Identity.objects.get(kind=kind.value, name=name), "replace"
    else:
        if len(list_identities(kind)) >= MAX_OF_A_KIND:
            raise Conflict(f"There are {MAX_OF_A_KIND} already. Remove one first.")
        identity = Identity(
            kind=kind.value,
            name=name,
            secret_encrypted=fresh["set__secret_encrypted"],
            use=fresh["set__use"],
            bound=bound,
        )
        try:
            identity.save(force_insert=True)
        except NotUniqueError:
            raise Conflict("Somebody is adding this name right now. Try again.") from None
        what = "add"
    _record(identity, what, actor, after={"name": name, **({"use": use.value} if use else {})})
    return view_identity(identity)


def _checked_proxy(address: str) -> str:
    """Its host may be private: it is the operator's own. Raises InvalidParameter, without quoting the address."""
    wrong = InvalidParameter(
        f"proxy: a proxy's address, such as http://user:password@host:8080. Schemes: {', '.join(SCHEMES)}.",
        parameter="proxy",
    )
    address = address.strip()
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    is_plain = address.isascii() and address.isprintable() and " " not in address and len(address) <= MAX_ADDRESS_CHARS
    if not is_plain or parts.scheme not in SCHEMES or not _HOST.fullmatch(host) or not port:
        raise wrong
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise wrong
    return address.rstrip("/")


def _about(identity: Identity) -> str:
    try:
        secret = decrypt_secret(identity.secret_encrypted)
    except SecretUnreadable:
        return "unreadable"
    if identity.kind == IdentityKind.COOKIES:
        return describe_cookies(secret)
    if identity.kind == IdentityKind.PO_TOKEN:
        return read_po_tokens(secret).describe()
    parts = urlsplit(secret)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port}{', with a password' if parts.password else ''}"


def _known(identity_id: str, kind: IdentityKind) -> Identity:
    identity = find_identity(identity_id)
    if identity is None or identity.kind != kind:
        raise NotFound(f"There {_NAMES[kind]}.")
    return identity


def _record(
    identity: Identity,
    what: str,
    actor: Actor,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    audit.record(
        actor=actor.name,
        action=f"{identity.kind}.{what}",
        target_kind=identity.kind,
        target_id=identity.id,
        before=before,
        after=after,
        address=actor.address,
    )
