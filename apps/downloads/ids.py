"""Ids of jobs, batches, orders and warm-ups."""

from __future__ import annotations

import secrets


def new_job_id() -> str:
    """An id that cannot be guessed: knowing it is enough to read a job."""
    return secrets.token_urlsafe(16)
