"""Signed links to streams: who may read what until when, with nothing secret in them."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus

from django.conf import settings

from apps.core.errors import LinkExpired, LinkInvalid

SIGNATURE_PARAMETER = "sig"
BOUND_PARAMETER = "ip"
MAX_KEYS = 5
CLOCK_SKEW_S = 5  # how far the clocks of two nodes may differ
LONGEST_LIFE_S = 7 * 86_400  # of a link, as LINK_TTL_S allows it: one that ends later was signed by a wrong clock
_BLOCK_BYTES = 64  # of SHA-256; the keys are shorter
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_EXPIRES = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedLink:
    """What a valid signed link says."""

    asset_id: str
    key_prefix: str
    expires_at: int  # UNIX seconds
    attachment: bool
    bound_to: str = ""  # the network that it may be opened from; empty: from everywhere


@lru_cache(maxsize=2 * MAX_KEYS)
def _signing_key(secret: str) -> bytes:
    return hashlib.sha256(b"ytserver signed links\0" + secret.encode()).digest()


@lru_cache(maxsize=2)
def _keys(link_keys: tuple[str, ...], secret_key: str) -> tuple[bytes, ...]:
    """The keys that links may be signed with; the first one signs. SECRET_KEY's is always one of them."""
    return tuple(_signing_key(secret) for secret in (*link_keys, secret_key))


def _own_keys() -> tuple[bytes, ...]:
    return _keys(settings.ENV.link_keys, settings.SECRET_KEY)


@lru_cache(maxsize=2 * MAX_KEYS)
def _halves(key: bytes) -> tuple[Any, Any]:
    """The two hashes of an HMAC (RFC 2104), begun with the key: to go on from copies costs half of ``hmac.digest``."""
    block = key.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))


def _sign(key: bytes, text: str) -> str:
    inner, outer = _halves(key)
    return _signature(inner, outer, text.encode())


def _signature(begun: Any, outer: Any, rest: bytes) -> str:
    """Of what the inner hash was ``begun`` with, and ``rest``. Both hashes stay as they are."""
    inner, outer = begun.copy(), outer.copy()
    inner.update(rest)
    outer.update(inner.digest())
    return b2a_base64(outer.digest(), newline=False).translate(_URL_SAFE, b"=").decode()


def sign_link(
    *, path: str, asset_id: str, key_prefix: str, expires_at: int, attachment: bool, bound_to: str = ""
) -> str:
    """``path`` with the query that lets its holder read ``asset_id`` until ``expires_at`` (UNIX seconds).

    ``bound_to``: the only network (``apps.keys.limits.network_of``) from which it may be opened.
    """
    link, attached = sign_link_pair(
        path=path, asset_id=asset_id, key_prefix=key_prefix, expires_at=expires_at, bound_to=bound_to
    )
    return attached if attachment else link


def sign_link_pair(
    *, path: str, asset_id: str, key_prefix: str, expires_at: int, bound_to: str = ""
) -> tuple[str, str]:
    """``sign_link`` twice: without and with ``attachment``."""
    begun, outer = _halves(_own_keys()[0])
    begun = begun.copy()
    begun.update(f"{path}\n{asset_id}\n{key_prefix}\n{expires_at}\n".encode())
    query = f"{path}?asset={_quoted(asset_id)}&key_id={_quoted(key_prefix)}&expires={expires_at}"
    bound, rest = (f"&{BOUND_PARAMETER}={quote_plus(bound_to)}", f"\n{bound_to}".encode()) if bound_to else ("", b"")
    return (
        f"{query}{bound}&{SIGNATURE_PARAMETER}={_signature(begun, outer, b'0' + rest)}",
        f"{query}&download=1{bound}&{SIGNATURE_PARAMETER}={_signature(begun, outer, b'1' + rest)}",
    )


def _quoted(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote_plus(text)


def check_link(path: str, query: Mapping[str, str], *, now: float | None = None) -> SignedLink:
    """Read a signed link. Raises LinkInvalid, or LinkExpired for a link that was valid. Constant-time comparison.

    A link lives CLOCK_SKEW_S longer than it says, for nodes whose clocks differ. Where it may be opened from
    (``bound_to``) is for the caller to check.
    """
    expires_text = query.get("expires", "")
    signature = query.get(SIGNATURE_PARAMETER, "")
    if not _EXPIRES.fullmatch(expires_text) or not _SIGNATURE.fullmatch(signature):
        raise LinkInvalid
    link = SignedLink(
        asset_id=query.get("asset", ""),
        key_prefix=query.get("key_id", ""),
        expires_at=int(expires_text),
        attachment=query.get("download") == "1",
        bound_to=query.get(BOUND_PARAMETER, ""),
    )
    text = f"{path}\n{link.asset_id}\n{link.key_prefix}\n{link.expires_at}\n{int(link.attachment)}"
    text = f"{text}\n{link.bound_to}" if link.bound_to else text
    fits = [hmac.compare_digest(_sign(key, text), signature) for key in _own_keys()]
    if not any(fits):
        raise LinkInvalid
    now = time.time() if now is None else now
    if link.expires_at > now + LONGEST_LIFE_S + CLOCK_SKEW_S:
        raise LinkInvalid
    if is_over(link, now=now):
        raise LinkExpired
    return link


def is_over(link: SignedLink, *, now: float | None = None) -> bool:
    """Whether a checked link can no longer be used."""
    return link.expires_at <= (time.time() if now is None else now) - CLOCK_SKEW_S
