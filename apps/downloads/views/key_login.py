"""The login page of the browsable API: with an API key."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_POST

from apps.core.errors import ApiError
from apps.keys.browser_key import forget_key, log_in_with_key

LONGEST_KEY = 200


@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def key_login(request: HttpRequest) -> HttpResponse:
    """Take a key and go on to the page that asked for it."""
    goal = _goal(request)
    if request.method != "POST":
        return render(request, "api/login.html", {"next": goal})
    try:
        log_in_with_key(request, request.POST.get("key", "").strip()[:LONGEST_KEY])
    except ApiError as error:
        response = render(request, "api/login.html", {"next": goal, "problem": error.message}, status=error.status)
        if error.retry_after_s:
            response["Retry-After"] = str(round(error.retry_after_s))
        return response
    return redirect(goal)


@never_cache
@csrf_protect
@require_POST
def key_logout(request: HttpRequest) -> HttpResponse:
    forget_key(request)
    return redirect("api-root")


def _goal(request: HttpRequest) -> str:
    goal = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(goal, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        return goal
    return reverse("api-root")
