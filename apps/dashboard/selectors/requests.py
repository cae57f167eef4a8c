"""How much a key did lately, from sums: its requests may be very many."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from apps.analytics import reports
from apps.analytics.spans import named_span


@dataclass(frozen=True, kw_only=True)
class KeyUsage:
    """What a key did in the last 24 hours. ``errors``: answers of status 400 and above."""

    requests: int
    errors: int
    bytes_sent: int


def key_usage(prefix: str) -> KeyUsage:
    """What one key did since yesterday at this time. Follows within three minutes."""
    totals = reports.key_usage(prefix, named_span("24h", zone=ZoneInfo("UTC"))).totals
    return KeyUsage(requests=totals.requests, errors=totals.errors + totals.refused, bytes_sent=totals.bytes_sent)
