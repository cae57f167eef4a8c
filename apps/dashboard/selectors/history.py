"""What happened to one thing: its entries in the audit log, its jobs."""

from __future__ import annotations

from apps.core.documents import AuditEntry
from apps.downloads.documents import MediaJob

HISTORY_LENGTH = 20


def history(target_kind: str, target_id: str) -> list[AuditEntry]:
    """The newest changes made to one thing."""
    entries = AuditEntry.objects(target_kind=target_kind, target_id=target_id)
    return list(entries.order_by("-at").limit(HISTORY_LENGTH))


def history_of_kind(target_kind: str) -> list[AuditEntry]:
    """The newest changes made to all things of one kind."""
    return list(AuditEntry.objects(target_kind=target_kind).order_by("-at").limit(HISTORY_LENGTH))


def asset_jobs(asset_id: str) -> list[MediaJob]:
    """The newest fetches of one asset."""
    return list(MediaJob.objects(asset_id=asset_id).order_by("-created_at").limit(HISTORY_LENGTH))
