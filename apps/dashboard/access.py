"""Who may enter the admin and what they may do there. The one place where pages and actions check it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import redis
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from pymongo.errors import PyMongoError

from apps.core import audit
from apps.core.outages import outage_of
from apps.dashboard.kept import keep_typed
from apps.keys.documents import Role, User
from apps.keys.roles import may
from apps.keys.sessions import is_confirmed, note_use

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponse]

__all__ = [
    "AdminRequest",
    "admin_page",
    "ask_about_typed",
    "ask_again",
    "asks_again",
    "client_address",
    "is_script",
    "login_href",
    "may",
    "problem",
    "record_change",
    "unavailable",
    "who",
]


class AdminRequest(HttpRequest):
    """A request that ``admin_page`` let through: there is a user, with a role that is enough."""

    admin_user: User


def client_address(request: HttpRequest) -> str:
    """The address that called (see ``apps.core.proxies``)."""
    return str(request.META.get("REMOTE_ADDR", ""))


def who(request: AdminRequest) -> audit.Who:
    """Who does something, and from where, for services that write the audit log themselves."""
    return {"actor": request.admin_user.username, "address": client_address(request)}


def admin_page(role: Role = Role.VIEWER, *, methods: tuple[str, ...] = ("GET", "HEAD")) -> Callable[[View], View]:
    """Let only people with ``role`` or a higher one reach a view. Its answers are never stored by caches.

    Nobody logged in: to the login page and back (401 for scripts). A lower role: 403 in plain words. When MongoDB or
    Redis does not do its work: a page that says why, 503.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                response = _refusal(request, role, methods)
                if response is None:
                    if not is_script(request):  # a page that asks by itself keeps nobody logged in
                        note_use(request)
                    response = view(request, *args, **kwargs)
            except (PyMongoError, redis.RedisError) as error:
                logger.exception("a service does not work")
                response = unavailable(request, error)
            add_never_cache_headers(response)
            return response

        return checked

    return decorate


def _refusal(request: HttpRequest, role: Role, methods: tuple[str, ...]) -> HttpResponse | None:
    user: User | None = getattr(request, "admin_user", None)
    if not may(user, Role.VIEWER):
        if is_script(request):
            return JsonResponse({"status": False, "message": "Log in first."}, status=401)
        return redirect(login_href(request))
    if request.method not in methods:
        response = problem(request, 405, "This page does not do that.", "The address does not answer that method.")
        response["Allow"] = ", ".join(methods)
        return response
    if not may(user, role):
        return problem(
            request,
            403,
            "You may look, but not change this.",
            f"Your role is {user.role if user else ''}; this needs {role}. Ask an owner of this server.",
        )
    return None


def is_script(request: HttpRequest) -> bool:
    """Whether a script of ours asks, which cannot use a login page."""
    return request.headers.get("X-Requested-With") == "fetch"


def login_href(request: HttpRequest) -> str:
    """The login page, with the way back for pages that were asked for by GET."""
    query = urlencode({"next": request.get_full_path()}) if request.method == "GET" else ""
    return reverse("dashboard:login") + (f"?{query}" if query else "")


def asks_again(view: View) -> View:
    """For what an open browser or a stolen session must not be enough for: only soon after the password (and code) were
    given again (``views.account.confirm``). Inside ``admin_page``; what was typed is kept for forms bound to
    ``kept.typed``."""

    @functools.wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs) if is_confirmed(request) else ask_again(request)

    return checked


def ask_again(request: HttpRequest, then: str = "", back: str = "") -> HttpResponse:
    """To the page that asks for the password (and code), and from there ``then`` (or back to this address, with what
    was typed). ``back`` is for those who give none."""
    query = {"next": then or keep_typed(request)} | ({"back": back} if back else {})
    return redirect(f"{reverse('dashboard:account-confirm')}?{urlencode(query)}")


def ask_about_typed(request: HttpRequest) -> HttpResponse:
    """``ask_again`` for a form that needs it for some values only: who gives no password finds it as they sent it."""
    address = keep_typed(request)
    return ask_again(request, address, back=address)


def problem(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    """A page that says in plain words what is wrong."""
    return render(request, "dashboard/problem.html", {"title": title, "text": text}, status=status)


def unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    """503: what is the matter with MongoDB or Redis."""
    outage = outage_of(error)
    what = outage.what if outage else f"{'MongoDB' if isinstance(error, PyMongoError) else 'Redis'} reports an error"
    return render(request, "dashboard/unavailable.html", {"what": what}, status=503)


def record_change(
    request: AdminRequest,
    action: str,
    *,
    target_kind: str,
    target_id: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write what the logged-in person just changed to the audit log."""
    audit.record(
        actor=request.admin_user.username,
        action=action,
        target_kind=target_kind,
        target_id=target_id,
        before=before,
        after=after,
        address=client_address(request),
    )
