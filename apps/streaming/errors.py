"""Errors of streams that more than one part of them raises."""

from __future__ import annotations

from apps.core.errors import Overloaded

FULL_RETRY_S = 10.0


def disk_full() -> Overloaded:
    """For bytes that have to come back to the hot store and find no room there."""
    return Overloaded("The server's disk is full. Try again later.", retry_after_s=FULL_RETRY_S)
