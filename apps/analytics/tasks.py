"""Periodic work of analytics."""

from __future__ import annotations

from celery import shared_task

from apps.analytics import concurrency, events, rollups


@shared_task
def drain_events() -> int:
    """Move waiting events to MongoDB. Idempotent."""
    return events.drain_events()


@shared_task
def roll_up() -> int:
    """Compute the sums that are out of date. Idempotent, one at a time."""
    return rollups.roll_up()


@shared_task
def track_users() -> int:
    """Write who is active now, and the peak of this minute. Idempotent."""
    return concurrency.track_users()
