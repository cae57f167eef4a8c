"""Logging in to the browsable API with a key: the session keeps it, encrypted, and only pages for people use it.

A link or picture on another site spends nothing of that key (``ELSEWHERE``). It never has the scope admin there: who
has only the session's cookie must not be able to do what asks people for their password again. It ends with the times
of sessions (``apps.keys.sessions``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from apps.core.errors import ApiError
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.keys.authentication import authenticate
from apps.keys.documents import Scope
from apps.keys.drf import ApiKeyAuthentication, charge_failure_once, check_csrf, client_address, counts_request
from apps.keys.grants import KeyGrant
from apps.keys.roles import SAFE_METHODS
from apps.keys.sessions import is_in_time, note_use_in, start_times

SESSION_FIELD = "_api_key"
_KEY = "key"
OWN_SITES = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of our own pages, and of an address that somebody typed."""
ELSEWHERE = "Another site sent you here. To do this with your key, go to the address bar and press Enter."
PAGE_FORMAT = "api"  # REST framework's name for its browsable pages


def log_in_with_key(request: HttpRequest, raw: str) -> KeyGrant:
    """Remember a good key for this browser.

    Raises KeyInvalid, KeyDisabled, KeyExpired, IpNotAllowed; RateLimited for an address that keeps trying wrong ones.
    """
    try:
        grant = authenticate(raw, client_address(request))
    except ApiError:
        charge_failure_once(request)
        raise
    request.session.cycle_key()
    kept: dict[str, Any] = {_KEY: encrypt_secret(raw)}
    start_times(kept)
    request.session[SESSION_FIELD] = kept
    return grant


def forget_key(request: HttpRequest) -> None:
    request.session.pop(SESSION_FIELD, None)


class BrowserKeyAuthentication(ApiKeyAuthentication):
    """The key that this browser logged in with, without the scope admin. For browsable pages only; a change needs the
    CSRF token.

    What counts against the key's limits must not come from another site.
    """

    def authenticate(self, request: Request) -> tuple[KeyGrant, str] | None:
        found = super().authenticate(request)
        if found is None:
            return None
        grant, prefix = found
        return replace(grant, scopes=grant.scopes - {Scope.ADMIN.value}), prefix

    def raw_key(self, request: Request) -> str | None:
        renderer = getattr(request, "accepted_renderer", None)
        kept = _kept(request._request) if getattr(renderer, "format", "") == PAGE_FORMAT else None
        if kept is None or super().raw_key(request) is not None:
            return None
        if request.method not in SAFE_METHODS:
            check_csrf(request)
        if counts_request(request) and comes_from_elsewhere(request._request):
            raise PermissionDenied(ELSEWHERE)
        try:
            return decrypt_secret(kept)
        except SecretUnreadable:
            return None


def _kept(request: HttpRequest) -> str | None:
    """The encrypted key, unless it was kept or not used for too long: then it is forgotten. Notes the use."""
    kept = request.session.get(SESSION_FIELD)
    if not isinstance(kept, dict) or not is_in_time(kept):
        forget_key(request)
        return None
    if note_use_in(kept):
        request.session[SESSION_FIELD] = kept
    return str(kept[_KEY])


def comes_from_elsewhere(request: HttpRequest) -> bool:
    """Whether a page of another origin made the browser ask, as far as the browser tells.

    Every browser of today says it over https (and to localhost). Over plain http only ``Referer`` is left, which the
    other site can suppress.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in OWN_SITES
    referer = request.headers.get("Referer")
    return bool(referer) and urlsplit(referer).netloc != request.get_host()
