"""Logging in to the browsable API with a key: the session keeps it, encrypted, and only pages for people use it."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request

from apps.core.errors import ApiError
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.keys.authentication import KeyGrant, authenticate
from apps.keys.drf import ApiKeyAuthentication, charge_failure_once, check_csrf, client_address
from apps.keys.roles import SAFE_METHODS

SESSION_FIELD = "_api_key"
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
    request.session[SESSION_FIELD] = encrypt_secret(raw)
    return grant


def forget_key(request: HttpRequest) -> None:
    request.session.pop(SESSION_FIELD, None)


class BrowserKeyAuthentication(ApiKeyAuthentication):
    """The key that this browser logged in with. For browsable pages only; a change needs the CSRF token."""

    def raw_key(self, request: Request) -> str | None:
        renderer = getattr(request, "accepted_renderer", None)
        stored = request._request.session.get(SESSION_FIELD) if getattr(renderer, "format", "") == PAGE_FORMAT else None
        if not isinstance(stored, str) or super().raw_key(request) is not None:
            return None
        if request.method not in SAFE_METHODS:
            check_csrf(request)
        try:
            return decrypt_secret(stored)
        except SecretUnreadable:
            return None
