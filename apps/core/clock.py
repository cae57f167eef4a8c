"""The time, as every document and every rule of this program reads it."""

from __future__ import annotations

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Now, aware of its zone (UTC)."""
    return datetime.now(UTC)
