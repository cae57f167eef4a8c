"""Who is signed in to the admin, and the rate limit headers of every keyed answer."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from apps.core.request_state import CHARGED
from apps.keys.limits import limit_headers
from apps.keys.sessions import user_of_session
from apps.keys.windows import WindowState

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class AdminUserMiddleware:
    """``request.admin_user``: the signed-in User, or something false. Looked up when it is first used, not before."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.admin_user = SimpleLazyObject(lambda: user_of_session(request))  # type: ignore[attr-defined]
        return self.get_response(request)


class RateLimitHeadersMiddleware:
    """Puts the key's limit on every answer to a request that was counted, errors included."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        state = request.META.get(CHARGED)
        if isinstance(state, WindowState):
            for name, value in limit_headers(state).items():
                response.headers[name] = value
        return response
