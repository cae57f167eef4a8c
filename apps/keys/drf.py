"""Who calls, for Django REST framework: API keys (authentication, limits, scopes) and people logged in to the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.core.api_errors import WWW_AUTHENTICATE
from apps.core.asker import asker_var
from apps.core.errors import ApiError, RateLimited, RoleMissing
from apps.core.request_state import ASGI_SCOPE, CHARGED, KEY_PREFIX, REFUSED, USED
from apps.core.trace import note
from apps.keys.authentication import authenticate, extract_key
from apps.keys.documents import Role, Scope
from apps.keys.grants import KeyGrant
from apps.keys.last_used import note_keys_used
from apps.keys.limits import LimitState, charge, charge_failure, tightest, usage
from apps.keys.roles import SAFE_METHODS, AdminGrant, reaches, role_needed

if TYPE_CHECKING:
    from rest_framework.views import APIView  # which imports this module by the settings


class ApiKeyAuthentication(BaseAuthentication):
    """``request.user`` becomes the KeyGrant, ``request.auth`` the key's prefix. Counts the request, once.

    Without a key nobody is signed in, and HasApiKey decides. A suspended request that runs again is authenticated again
    (its key may be revoked by now) but not counted again. A view whose ``counts_requests`` is False is free.
    """

    def authenticate(self, request: Request) -> tuple[KeyGrant, str] | None:
        raw = self.raw_key(request)
        if raw is None:
            return None
        django_request = request._request
        try:
            grant = authenticate(raw, client_address(django_request))
        except ApiError:
            charge_failure_once(django_request)
            raise
        django_request.META[KEY_PREFIX] = grant.prefix
        asker_var.set(grant.prefix)
        note(django_request.META.get(ASGI_SCOPE), key_prefix=grant.prefix)
        if CHARGED not in django_request.META:
            try:
                django_request.META[CHARGED] = _charge(request, grant)
            except RateLimited as error:
                django_request.META[CHARGED] = error.limit_state
                raise
            note_keys_used([grant.prefix])
        return grant, grant.prefix

    def raw_key(self, request: Request) -> str | None:
        """The key as it was sent, wherever it may be sent."""
        return extract_key({name.lower(): value for name, value in request.headers.items()}, request.query_params)

    def authenticate_header(self, request: Request) -> str:
        return WWW_AUTHENTICATE


def _charge(request: Request, grant: KeyGrant) -> LimitState:
    if counts_request(request):
        return charge(grant)
    states = request._request.META[USED] = usage(grant)
    return tightest(states)


class AdminSessionAuthentication(BaseAuthentication):
    """``request.user`` becomes the AdminGrant of who is logged in to the admin, on views that need the scope admin.

    A key that is sent along goes first. A change needs the CSRF token (the header X-CSRFToken, or the form's field).
    """

    def authenticate(self, request: Request) -> tuple[AdminGrant, str] | None:
        view = (request.parser_context or {}).get("view")
        user = getattr(request._request, "admin_user", None)
        if getattr(view, "required_scope", None) != Scope.ADMIN or not user:
            return None
        if request.method not in SAFE_METHODS:
            check_csrf(request)
        return AdminGrant(username=user.username, role=Role(user.role)), user.username

    def authenticate_header(self, request: Request) -> str:
        return WWW_AUTHENTICATE


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        raise PermissionDenied(f"The CSRF check failed: {reason}")


def check_csrf(request: Request) -> None:
    """Raises PermissionDenied without the token. REST framework's views are exempt from Django's own check."""
    check = _CsrfCheck(lambda _request: HttpResponse())
    check.process_request(request._request)
    check.process_view(request._request, lambda: HttpResponse(), (), {})


class HasApiKey(BasePermission):
    """Lets callers with a good key in. Others get ``key_missing``, or ``rate_limited`` when they keep asking.

    Raises REST framework's own exceptions: its browsable pages ask permissions again, and expect those.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.user, KeyGrant | AdminGrant):
            return True
        charge_failure_once(request._request)
        raise NotAuthenticated


class HasScope(HasApiKey):
    """Lets callers in whose key has the view's ``required_scope`` (an attribute). Others get ``scope_missing``.

    People logged in to the admin reach only views that need the scope admin, with a role that is enough: the view's
    ``role_to_read`` (viewer, when it has none) and ``role_to_change`` (operator). Others get ``role_missing``.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        super().has_permission(request, view)
        if isinstance(request.user, AdminGrant):
            _check_role(request.user, request, view)
        required: Any = getattr(view, "required_scope", None)
        if required is not None and str(required) not in request.user.scopes:
            raise PermissionDenied(f"This API key does not have the scope {Scope(required).value}.")
        return True


def _check_role(user: AdminGrant, request: Request, view: APIView) -> None:
    to_read: Role = getattr(view, "role_to_read", Role.VIEWER)
    to_change: Role = getattr(view, "role_to_change", Role.OPERATOR)
    needed = role_needed(request.method or "", to_read=to_read, to_change=to_change)
    if not reaches(user.role, needed):
        raise RoleMissing(f"Your role is {user.role}; this needs {needed}.")


def counts_request(request: Request) -> bool:
    """Whether the view counts its requests against the key's limits."""
    view = (request.parser_context or {}).get("view")
    return bool(getattr(view, "counts_requests", True))


def charge_failure_once(request: HttpRequest) -> None:
    if REFUSED not in request.META:
        request.META[REFUSED] = True
        charge_failure(client_address(request))


def client_address(request: HttpRequest) -> str:
    """The address that called (see ``apps.core.proxies``)."""
    return str(request.META.get("REMOTE_ADDR", ""))
