"""Stretches of time: where minutes, hours and days begin, and how a range is put together from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apps.analytics.documents import Grain


def floor(moment: datetime, grain: Grain) -> datetime:
    """The start of the minute, hour or UTC day that a moment lies in."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % grain.seconds, UTC)


def ceil(moment: datetime, grain: Grain) -> datetime:
    """The first start of a minute, hour or UTC day that is not before a moment."""
    start = floor(moment, grain)
    return start if start == moment else start + timedelta(seconds=grain.seconds)


def length(grain: Grain) -> timedelta:
    return timedelta(seconds=grain.seconds)
