"""The overview: how the server is, at a glance, kept fresh by a small script."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page
from apps.dashboard.job_list import job_progress, job_state


@admin_page()
def overview(request: AdminRequest) -> HttpResponse:
    return render(request, "dashboard/overview/page.html", {**_live(), "base_url": settings.ENV.base_url})


@admin_page()
def overview_live(request: AdminRequest) -> HttpResponse:
    """Only what changes, as a piece of the page."""
    return render(request, "dashboard/overview/_live.html", _live())


@admin_page()
def overview_requests(request: AdminRequest) -> JsonResponse:
    """Requests per minute in the last hour, for the chart."""
    minutes = selectors.last_hour()
    return JsonResponse(
        {
            "starts": [start.isoformat() for start in minutes.starts],
            "answered": minutes.answered,
            "refused": minutes.refused,
            "failed": minutes.failed,
        }
    )


def _live() -> dict[str, Any]:
    figures = selectors.figures()
    return {
        "figures": figures,
        "minutes": selectors.last_hour(),
        "health": selectors.health(),
        "jobs": [{"job": job, "state": job_state(job), "progress": job_progress(job)} for job in figures.jobs],
    }
