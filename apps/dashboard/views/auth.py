"""Logging in and out, and the light or dark theme."""

from __future__ import annotations

from urllib.parse import urlencode

import redis
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST
from pymongo.errors import PyMongoError

from apps.dashboard import access
from apps.dashboard.login import LoginResult, try_code, try_login
from apps.keys import sessions
from apps.keys.documents import Role

THEME_COOKIE = "theme"
THEMES = ("dark", "light")
THEME_AGE_S = 365 * 86400


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """The login page. After it, back to ``next`` when that is a page of this server."""
    try:
        return _login(request)
    except (PyMongoError, redis.RedisError) as error:
        return access.unavailable(request, error)


def _login(request: HttpRequest) -> HttpResponse:
    goal = safe_next(request)
    if request.method != "POST":
        if access.may(request.admin_user, Role.VIEWER):  # type: ignore[attr-defined]
            return redirect(goal)
        return render(request, "dashboard/login.html", {"next": goal})
    username = request.POST.get("username", "").strip()[:64]
    result = try_login(
        username=username, password=request.POST.get("password", "")[:1000], address=access.client_address(request)
    )
    if result.user is None:
        context = {"username": username, "next": goal}
        return _refused(request, "dashboard/login.html", result, context)
    if result.needs_code:
        sessions.wait_for_code(request, result.user)
        return redirect(f"{reverse('dashboard:login-code')}?{urlencode({'next': goal})}")
    sessions.login(request, result.user)
    return redirect(goal)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def login_code(request: HttpRequest) -> HttpResponse:
    """The second step of a login with a second factor."""
    try:
        return _login_code(request)
    except (PyMongoError, redis.RedisError) as error:
        return access.unavailable(request, error)


def _login_code(request: HttpRequest) -> HttpResponse:
    goal = safe_next(request)
    user = sessions.user_waiting_for_code(request)
    if user is None:
        return redirect(f"{reverse('dashboard:login')}?{urlencode({'next': goal})}")
    if request.method != "POST":
        return render(request, "dashboard/login_code.html", {"next": goal})
    result = try_code(user=user, code=request.POST.get("code", "")[:40], address=access.client_address(request))
    if result.user is None:
        return _refused(request, "dashboard/login_code.html", result, {"next": goal})
    sessions.login(request, result.user)
    return redirect(goal)


def _refused(request: HttpRequest, template: str, result: LoginResult, context: dict[str, str]) -> HttpResponse:
    status = 429 if result.wait_s else 401
    response = render(request, template, {"problem": result.problem, **context}, status=status)
    if result.wait_s:
        response["Retry-After"] = str(result.wait_s)
    return response


def safe_next(request: HttpRequest) -> str:
    """Where the caller wants to go, if it is a page of this server; else the overview."""
    goal = request.POST.get("next") or request.GET.get("next") or ""
    return goal if is_own_page(request, goal) else reverse("dashboard:overview")


def is_own_page(request: HttpRequest, address: str) -> bool:
    """Whether an address from outside is one of this server."""
    allowed = {request.get_host()}
    return url_has_allowed_host_and_scheme(address, allowed_hosts=allowed, require_https=request.is_secure())


@never_cache
@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """End the session on the server."""
    sessions.logout(request)
    return redirect("dashboard:login")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember the light or the dark theme in a cookie of this browser."""
    response = redirect(safe_next(request))
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(
            THEME_COOKIE, chosen, max_age=THEME_AGE_S, httponly=True, samesite="Lax", secure=request.is_secure()
        )
    return response
