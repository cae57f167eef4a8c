"""The overview: how the server is, second by second over a websocket, every 30 s without one."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from apps.dashboard.access import AdminRequest, admin_page
from apps.dashboard.live.moment import PIECES, history, read_moment


@admin_page()
def overview(request: AdminRequest) -> HttpResponse:
    return render(request, "dashboard/overview/page.html", {**read_moment(), "base_url": settings.ENV.base_url})


@admin_page()
def overview_live(request: AdminRequest) -> HttpResponse:
    """Only what changes, as pieces of the page."""
    templates = [(f"live-{name}", f"dashboard/overview/_{name}.html") for name in PIECES]
    return render(request, "dashboard/overview/_live.html", {**read_moment(), "templates": templates})


@admin_page()
def overview_history(request: AdminRequest) -> JsonResponse:
    """The last hour, for the charts of a browser that got no websocket."""
    return JsonResponse(history())
