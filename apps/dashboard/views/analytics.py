"""Analytics: what was asked in a range of time, as charts, tables and files."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from apps.analytics.rendering import TABLES, key_usage_fields, report_fields, to_csv
from apps.analytics.reports import MAX_TOP, Report, key_usage, usage_report
from apps.analytics.spans import DAY_STEP_S, RANGES, Span, make_span, named_span, read_zone, zone_names
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter
from apps.dashboard.access import AdminRequest, admin_page

DEFAULT_RANGE = "24h"
RANGE_LABELS = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
ZONE_COOKIE = "zone"  # what somebody chose last holds till they choose another
ZONE_AGE_S = 365 * 86400
FIELD_TIME = "%Y-%m-%dT%H:%M"  # what <input type="datetime-local"> sends


@admin_page()
def analytics(request: AdminRequest) -> HttpResponse:
    zone, problem = _zone(request)
    try:
        span, chosen = _span(request, zone)
    except InvalidParameter as error:
        span, chosen, problem = named_span(DEFAULT_RANGE, zone=zone), DEFAULT_RANGE, error.message
    report = usage_report(span)
    context = {
        "report": report,
        "steps": _steps(report),
        "ranges": [(name, RANGE_LABELS[name]) for name in RANGES],
        "chosen": chosen,
        "problem": problem,
        "zone": zone.key,
        "zone_options": _zone_options(),
        "from": span.start.astimezone(zone).strftime(FIELD_TIME),
        "to": span.end.astimezone(zone).strftime(FIELD_TIME),
        "query": _query(chosen, span),
        "tables": _tables(report),
        "max_rows": MAX_TOP,
    }
    response = render(request, "dashboard/analytics/page.html", context, status=422 if problem else 200)
    if request.GET.get("zone") == zone.key:
        response.set_cookie(
            ZONE_COOKIE, zone.key, max_age=ZONE_AGE_S, httponly=True, samesite="Lax", secure=request.is_secure()
        )
    return response


@admin_page()
def analytics_data(request: AdminRequest) -> HttpResponse:
    """The figures of the page, for its charts."""
    try:
        span, _ = _span(request, read_zone(request.GET.get("zone", "UTC")))
    except InvalidParameter as error:
        return JsonResponse({"status": False, "message": error.message}, status=error.status)
    return JsonResponse(report_fields(usage_report(span)))


@admin_page()
def analytics_key(request: AdminRequest, prefix: str) -> HttpResponse:
    """What one key did, for the chart of its page: in the zone asked for, else the one this browser chose last."""
    try:
        zone, problem = _zone(request)
        if problem:
            raise InvalidParameter(problem)
        span, _ = _span(request, zone)
    except InvalidParameter as error:
        return JsonResponse({"status": False, "message": error.message}, status=error.status)
    return JsonResponse(key_usage_fields(prefix, key_usage(prefix, span)))


@admin_page()
def analytics_export(request: AdminRequest) -> HttpResponse:
    """A table as a CSV file (``table``), or everything as a JSON file. Lists have MAX_TOP rows at most."""
    table = request.GET.get("table", "")
    try:
        span, _ = _span(request, read_zone(request.GET.get("zone", "UTC")))
        if table and table not in TABLES:
            raise InvalidParameter(f"table: must be one of {', '.join(TABLES)}.", parameter="table")
    except InvalidParameter as error:
        return HttpResponse(error.message, status=error.status, content_type="text/plain; charset=utf-8")
    report = usage_report(span, top=MAX_TOP)
    name = f"analytics-{table or 'all'}-{span.start:%Y%m%d%H%M}-{span.end:%Y%m%d%H%M}"
    if table:
        return _file(to_csv(report, table), f"{name}.csv", "text/csv; charset=utf-8")
    return _file(json.dumps(report_fields(report), indent=1), f"{name}.json", "application/json")


def _file(text: str, name: str, content_type: str) -> HttpResponse:
    return HttpResponse(
        text, content_type=content_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _zone(request: HttpRequest) -> tuple[ZoneInfo, str]:
    """The zone that was asked for (else the one that this browser chose last), and what is wrong with it."""
    try:
        if not request.GET.get("zone"):
            kept = request.COOKIES.get(ZONE_COOKIE, "")
            return read_zone(kept if kept in zone_names() else "UTC"), ""
        return read_zone(request.GET["zone"]), ""
    except InvalidParameter as error:
        return ZoneInfo("UTC"), error.message


@cache
def _zone_options() -> SafeString:
    """The 500 of them, which are the same for everybody, are a third of the page's work."""
    return format_html_join("", '<option value="{}"></option>', ((name,) for name in zone_names()))


def _span(request: HttpRequest, zone: ZoneInfo) -> tuple[Span, str]:
    """The range that was asked for, and its name ("own" for one with from and to). Raises InvalidParameter."""
    if not request.GET.get("from"):
        name = request.GET.get("range") or DEFAULT_RANGE
        return named_span(name, zone=zone), name
    start = _moment(request.GET["from"], "from", zone)
    end = _moment(request.GET["to"], "to", zone) if request.GET.get("to") else utcnow()
    return make_span(start, end, zone=zone), "own"


def _moment(text: str, name: str, zone: ZoneInfo) -> datetime:
    try:
        return datetime.strptime(text, FIELD_TIME).replace(tzinfo=zone)
    except ValueError:
        raise InvalidParameter(f"{name}: must be a day and a time, such as 2026-01-31T18:00.", parameter=name) from None


def _query(chosen: str, span: Span) -> str:
    if chosen != "own":
        return urlencode({"range": chosen, "zone": span.zone.key})
    start, end = (moment.astimezone(span.zone).strftime(FIELD_TIME) for moment in (span.start, span.end))
    return urlencode({"from": start, "to": end, "zone": span.zone.key})


def _tables(report: Report) -> list[dict[str, Any]]:
    return [
        _table("videos", "Top videos", "Video", report.videos, empty="No video was asked for in this range."),
        _table("keys", "Top API keys", "Key", report.keys, empty="No key was used in this range."),
        _table("error_codes", "Errors", "Code", report.errors, empty="No errors in this range."),
        _table("routes", "Routes", "Route", report.routes, empty="Nothing was asked in this range."),
        _table("tiers", "Where media came from", "Place", report.tiers, empty="No media was asked for in this range."),
    ]


def _table(name: str, title: str, head: str, rows: list[Any], *, empty: str) -> dict[str, Any]:
    return {"name": name, "title": title, "head": head, "rows": rows, "empty": empty}


def _steps(report: Report) -> list[dict[str, Any]]:
    """The chart as rows, newest first, without the empty ones."""
    series = report.series
    shown = "%d %b %Y" if series.step_s >= DAY_STEP_S else "%d %b %H:%M"
    rows = zip(series.starts, series.sums, series.first_byte_p50_s, series.first_byte_p95_s, strict=True)
    return [
        {"when": _when(start.astimezone(report.span.zone), shown), "sums": sums, "p50": p50, "p95": p95}
        for start, sums, p50, p95 in reversed(list(rows))
        if sums.requests
    ]


def _when(local: datetime, shown: str) -> str:
    """A time as the zone's clocks showed it; with the name of their offset where they showed it twice."""
    is_doubled = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return local.strftime(f"{shown} %Z" if is_doubled and "%H" in shown else shown)
