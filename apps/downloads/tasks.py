"""Celery tasks: thin, idempotent, and safe to send twice. What they do lives in the services and the engine."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down

from apps.downloads.fetch import engine
from apps.downloads.providers.chain import provider_chain
from apps.downloads.services import (
    asking,
    batch_turns,
    batches,
    info,
    jobs,
    queue,
    refetching,
    sweep,
    turns,
    warm_rounds,
    webhooks,
)

ASKING_QUEUES = frozenset({"resolve", "fetch"})


@shared_task(name="apps.downloads.tasks.resolve_info")
def resolve_info(video_id: str) -> None:
    info.resolve_info(video_id)


@shared_task(name="apps.downloads.tasks.resolve_pictures")
def resolve_pictures(video_id: str) -> None:
    info.resolve_pictures(video_id)


@shared_task(name="apps.downloads.tasks.look_up")
def look_up(kind: str, subject: str, detail: str) -> None:
    asking.look_up(kind, subject, detail)


@shared_task(name="apps.downloads.tasks.advance_batch")
def advance_batch(batch_id: str, token: str = "") -> None:
    batches.advance_batch(batch_id, token)


@shared_task(name="apps.downloads.tasks.revive_batches")
def revive_batches() -> None:
    batch_turns.revive_batches()


@shared_task(name="apps.downloads.tasks.fetch_asset")
def fetch_asset(job_id: str) -> None:
    """A message is a turn, not an order: the job that is next in line is fetched, which may be another one."""
    if engine.stopping.is_set():
        return
    with queue.next_job() as next_id:
        if next_id is not None:
            engine.fetch_asset(next_id, chain=provider_chain())
    if next_id is not None:
        turns.pass_turn_on()


@shared_task(name="apps.downloads.tasks.sweep_jobs")
def sweep_jobs() -> None:
    sweep.sweep_jobs()


@shared_task(name="apps.downloads.tasks.send_unsent")
def send_unsent() -> None:
    sweep.send_unsent()


@shared_task(name="apps.downloads.tasks.deliver_webhooks")
def deliver_webhooks() -> None:
    jobs.announce_missed()
    webhooks.deliver_due()


@shared_task(name="apps.downloads.tasks.advance_warm_ups")
def advance_warm_ups() -> None:
    warm_rounds.advance_warm_ups()


@shared_task(name="apps.downloads.tasks.refetch_lost")
def refetch_lost() -> None:
    refetching.refetch_lost()


@worker_shutting_down.connect
def stop_fetches(**_: Any) -> None:
    """Let running fetches end at once, so that the next worker goes on from their bytes."""
    engine.stopping.set()


@worker_ready.connect
def warm_sources(sender: Any, **_: Any) -> None:
    """Start yt-dlp's process before the first question needs it, in the workers that usually ask (40 MB each)."""
    if ASKING_QUEUES & set(sender.app.amqp.queues.consume_from):
        provider_chain().warm()


@worker_ready.connect
def look_for_lost_jobs(**_: Any) -> None:
    """Pick up what a killed worker left, without waiting for the next sweep."""
    sweep_jobs.delay()
