"""The system: health of every part, versions, settings, recent errors."""

from __future__ import annotations

from datetime import UTC, datetime

import redis
from django.http import HttpResponse
from django.shortcuts import render

from apps.core.error_log import recent_errors
from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page

SHOWN_ERRORS = 50


@admin_page()
def system(request: AdminRequest) -> HttpResponse:
    try:
        errors = recent_errors(SHOWN_ERRORS)
    except redis.RedisError:  # this page is for when something is away
        errors = []
    context = {
        "health": selectors.health(),
        "versions": selectors.versions(),
        "settings": selectors.shown_settings(),
        "errors": [_shown(error) for error in errors],
    }
    return render(request, "dashboard/system.html", context)


def _shown(error: dict[str, object]) -> dict[str, object]:
    known = {"event", "logger", "level", "timestamp", "exception", "request_id"}
    more = {name: value for name, value in error.items() if name not in known}
    return {**{name: error.get(name, "") for name in known}, "at": _moment(error.get("timestamp")), "more": more}


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
