"""Reports as plain data, for JSON, for CSV and for charts: the page and the API give the same figures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

from apps.analytics.reports import KeyUsage, Report, Sums, TopRow
from apps.analytics.spans import Span
from apps.downloads.services.answers import iso_utc

_SIGNS = r"=+@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b-"  # also those of East Asian width
_FORMULA = re.compile(rf"(?:^|[;\t\r\n])\s*(?=[{_SIGNS}])")
TABLES = ("series", "videos", "keys", "routes", "tiers", "error_codes")


def report_fields(report: Report) -> dict[str, Any]:
    """A report as JSON shows it."""
    series = report.series
    steps = zip(series.starts, series.sums, series.first_byte_p50_s, series.first_byte_p95_s, strict=True)
    return {
        **span_fields(report.span),
        "totals": {
            **sums_fields(report.totals),
            "error_rate": report.totals.error_rate,
            "first_byte_p50_s": report.first_byte_p50_s,
            "first_byte_p95_s": report.first_byte_p95_s,
            "hit_ratio": report.hit_ratio,
            "peak_users": report.peak_users,
        },
        "series": [
            {"start": iso_utc(start), **sums_fields(sums), "first_byte_p50_s": p50, "first_byte_p95_s": p95}
            for start, sums, p50, p95 in steps
        ],
        "videos": _rows(report.videos),
        "keys": _rows(report.keys),
        "routes": _rows(report.routes),
        "tiers": _rows(report.tiers),
        "error_codes": _rows(report.errors),
    }


def key_usage_fields(key_prefix: str, usage: KeyUsage) -> dict[str, Any]:
    """One key's use as JSON shows it."""
    return {
        "key_prefix": key_prefix,
        **span_fields(usage.span),
        "totals": sums_fields(usage.totals),
        "series": [
            {"start": iso_utc(start), **sums_fields(sums)} for start, sums in zip(usage.starts, usage.sums, strict=True)
        ],
    }


def span_fields(span: Span) -> dict[str, Any]:
    return {"start": iso_utc(span.start), "end": iso_utc(span.end), "zone": span.zone.key, "step_s": span.step_s}


def sums_fields(sums: Sums) -> dict[str, int]:
    return {
        "requests": sums.requests,
        "answered": sums.answered,
        "refused": sums.refused,
        "errors": sums.errors,
        "bytes_sent": sums.bytes_sent,
    }


def to_csv(report: Report, table: str) -> str:
    """One of TABLES as CSV (RFC 4180). What a spreadsheet would run as a formula has an apostrophe before it, also
    where a cell begins for one that parts cells at semicolons or tabs.
    """
    rows: list[dict[str, Any]] = report_fields(report)[table]
    empty = {"start": ""} if table == "series" else {"value": "", "label": ""}
    names = list(rows[0]) if rows else [*empty, *sums_fields(Sums())]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _FORMULA.sub(r"\g<0>'", value)
    return "" if value is None else value


def _rows(rows: Iterable[TopRow]) -> list[dict[str, Any]]:
    return [{"value": row.value, "label": row.label, **sums_fields(row.sums)} for row in rows]
