"""Celery tasks: thin, idempotent, and safe to send twice. What they do lives in the services and the engine."""

from __future__ import annotations

from celery import shared_task

from apps.downloads.services import info, sweep


@shared_task(name="apps.downloads.tasks.resolve_info")
def resolve_info(video_id: str) -> None:
    info.resolve_info(video_id)


@shared_task(name="apps.downloads.tasks.sweep_jobs")
def sweep_jobs() -> None:
    sweep.sweep_jobs()
