"""The address that is told when a key's jobs end. The operator sets it: callers never name addresses (ADR 6)."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from apps.core import audit
from apps.core.addresses import is_odd_number
from apps.core.errors import ApiError, InvalidParameter, NotFound
from apps.core.outbound import check_url, resolves_only_to_allowed
from apps.core.secrets import encrypt_secret
from apps.keys.documents import ApiKey

MAX_URL_CHARACTERS = 2000
WRONG_ADDRESS = "A webhook address is a public https:// address (http:// only to what OUTBOUND_ALLOW names)."
ODD_NUMBER = "The host of a webhook address is a name, or an IP address of four numbers up to 255, such as 203.0.113.7."


def set_webhook(prefix: str, url: str, *, actor: str, address: str = "") -> str:
    """Tell ``url`` from now on when jobs of this key end. Returns the new signing secret, shown only now.

    Raises InvalidParameter for an address that is not public https, and NotFound.
    """
    if problem := _problem_of(url):
        raise InvalidParameter(problem, parameter="url")
    secret = f"whsec_{secrets.token_urlsafe(32)}"
    _change(prefix, url=url, secret_encrypted=encrypt_secret(secret), actor=actor, address=address)
    return secret


def _problem_of(url: str) -> str:
    """What is wrong with an address, in words; empty where nothing is."""
    if not url.isprintable() or " " in url:
        return "A webhook address has no spaces, line breaks or invisible characters."
    if len(url) > MAX_URL_CHARACTERS:
        return f"A webhook address has at most {MAX_URL_CHARACTERS} characters."
    try:
        parts = urlsplit(url)
        if is_odd_number(parts.hostname or ""):
            return ODD_NUMBER
        check_url(url)
    except (ApiError, ValueError):
        return WRONG_ADDRESS
    return "" if parts.scheme == "https" or resolves_only_to_allowed(parts.hostname or "") else WRONG_ADDRESS


def remove_webhook(prefix: str, *, actor: str, address: str = "") -> None:
    """Tell nobody any more. Idempotent. Raises NotFound."""
    _change(prefix, url="", secret_encrypted="", actor=actor, address=address)


def _change(prefix: str, *, url: str, secret_encrypted: str, actor: str, address: str) -> None:
    changed = {"webhook_url": url, "webhook_secret_encrypted": secret_encrypted}
    before = ApiKey.objects(prefix=prefix).modify(**{f"set__{name}": value for name, value in changed.items()})
    if before is None:
        raise NotFound(f"There is no key with the prefix {prefix}.")
    audit.record(
        actor=actor,
        action="webhook set" if url else "webhook removed",
        target_kind="key",
        target_id=prefix,
        before={"webhook_url": before.webhook_url},
        after={"webhook_url": url},
        address=address,
    )
