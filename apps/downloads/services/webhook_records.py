"""Notes which keys are to be told that a job ended; ``webhooks`` then tells them."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from apps.core.queues import NotSent, send_task
from apps.downloads.documents import MediaJob, WebhookDelivery
from apps.keys.documents import ApiKey

DELIVER_TASK = "apps.downloads.tasks.deliver_webhooks"

log = structlog.get_logger(__name__)


def announce_end(job: MediaJob, *, to: Iterable[str] | None = None) -> None:
    """Have every key told that waited for this job (or those of ``to``) and has a webhook. Idempotent."""
    waiting = job.seen_by - set(job.left_by) if to is None else set(to)
    if not waiting:
        return
    told = [key.prefix for key in ApiKey.objects(prefix__in=waiting, active=True, webhook_url__gt="").only("prefix")]
    for prefix in told:
        noted = WebhookDelivery(id=f"{job.id}:{prefix}", job_id=job.id, key_prefix=prefix).to_mongo().to_dict()
        WebhookDelivery._get_collection().update_one({"_id": noted.pop("_id")}, {"$setOnInsert": noted}, upsert=True)
    if told:
        try:
            send_task(DELIVER_TASK)
        except NotSent as error:
            log.warning("webhooks wait for the next round", reason=str(error))
