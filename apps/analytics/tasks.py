"""Periodic work of analytics."""

from __future__ import annotations

from celery import shared_task

from apps.analytics import events


@shared_task
def drain_events() -> int:
    """Move waiting events to MongoDB. Idempotent."""
    return events.drain_events()
