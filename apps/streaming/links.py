"""Signed links to streams: who may read what until when, with nothing secret in them."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote_plus

from django.conf import settings

from apps.core.errors import LinkExpired, LinkInvalid

SIGNATURE_PARAMETER = "sig"


@dataclass(frozen=True, kw_only=True)
class SignedLink:
    """What a valid signed link says."""

    asset_id: str
    key_prefix: str
    expires_at: int  # UNIX seconds
    attachment: bool


@lru_cache(maxsize=2)
def _signing_key(secret: str) -> bytes:
    return hashlib.sha256(b"ytserver signed links\0" + secret.encode()).digest()


def _sign(path: str, asset_id: str, key_prefix: str, expires_at: int, attachment: bool) -> str:
    text = f"{path}\n{asset_id}\n{key_prefix}\n{expires_at}\n{int(attachment)}"
    digest = hmac.digest(_signing_key(settings.SECRET_KEY), text.encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def sign_link(*, path: str, asset_id: str, key_prefix: str, expires_at: int, attachment: bool) -> str:
    """``path`` with the query that lets its holder read ``asset_id`` until ``expires_at`` (UNIX seconds)."""
    signature = _sign(path, asset_id, key_prefix, expires_at, attachment)
    download = "&download=1" if attachment else ""
    query = f"asset={_quoted(asset_id)}&key_id={_quoted(key_prefix)}&expires={expires_at}{download}"
    return f"{path}?{query}&{SIGNATURE_PARAMETER}={signature}"


def _quoted(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote_plus(text)


def check_link(path: str, query: Mapping[str, str], *, now: float | None = None) -> SignedLink:
    """Read a signed link. Raises LinkInvalid, or LinkExpired for a link that was valid. Constant-time comparison."""
    expires_text = query.get("expires", "")
    signature = query.get(SIGNATURE_PARAMETER, "")
    if not re.fullmatch(r"[0-9]{1,12}", expires_text, re.ASCII) or not re.fullmatch(r"[A-Za-z0-9_-]{43}", signature):
        raise LinkInvalid
    link = SignedLink(
        asset_id=query.get("asset", ""),
        key_prefix=query.get("key_id", ""),
        expires_at=int(expires_text),
        attachment=query.get("download") == "1",
    )
    expected = _sign(path, link.asset_id, link.key_prefix, link.expires_at, link.attachment)
    if not hmac.compare_digest(expected, signature):
        raise LinkInvalid
    if link.expires_at <= (time.time() if now is None else now):
        raise LinkExpired
    return link
