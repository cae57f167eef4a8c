"""Reads of jobs and metadata."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from mongoengine import Q

from apps.downloads.documents import (
    Batch,
    Identity,
    IdentityKind,
    JobPriority,
    JobState,
    LookupRecord,
    MediaJob,
    MediaTicket,
    ProviderSettings,
    VideoInfoRecord,
)

MAX_ACTIVE_ASSETS = 10_000


def find_job(job_id: str) -> MediaJob | None:
    """A job by its id, running or finished."""
    return cast("MediaJob | None", MediaJob.objects(id=job_id).first())


def active_job(asset_id: str) -> MediaJob | None:
    """The one job that is fetching this asset, or waits to."""
    return cast("MediaJob | None", MediaJob.objects(asset_id=asset_id, active=True).first())


def latest_job(asset_id: str) -> MediaJob | None:
    """The newest job of an asset, whatever became of it."""
    return cast("MediaJob | None", MediaJob.objects(asset_id=asset_id).order_by("-created_at").first())


def list_jobs(*, key_prefix: str, skip: int, limit: int, state: JobState | None = None) -> tuple[list[MediaJob], int]:
    """A page of the jobs that this key asked for, first or later, newest first, and how many there are in all."""
    own = MediaJob.objects(Q(key_prefix=key_prefix) | Q(joined_by=key_prefix))
    if state is not None:
        own = own.filter(state=state.value)
    return list(own.order_by("-created_at").skip(skip).limit(limit)), int(own.count())


def active_assets(key_prefix: str) -> set[str]:
    """The assets whose running or waiting fetches this key began or joined, and has not left."""
    asked = Q(key_prefix=key_prefix) | Q(joined_by=key_prefix)
    own = MediaJob.objects(asked, active=True, left_by__ne=key_prefix, too_large_for__ne=key_prefix)
    return {job.asset_id for job in own.only("asset_id").limit(MAX_ACTIVE_ASSETS)}


def count_active_jobs(*, limit: int, key_prefix: str | None = None, state: JobState | None = None) -> int:
    """How many jobs run or wait (of one key, in one state); stops counting at ``limit``."""
    chosen = {"key_prefix": key_prefix, "state": None if state is None else state.value}
    jobs = MediaJob.objects(active=True, **{name: value for name, value in chosen.items() if value is not None})
    return int(jobs.limit(limit).count(with_limit_and_skip=True))


def running_jobs(*, limit: int) -> list[MediaJob]:
    """Jobs that some worker has begun, those not touched for longest first."""
    return list(MediaJob.objects(active=True, state=JobState.RUNNING.value).order_by("updated_at").limit(limit))


def waiting_jobs(*, untouched_since: datetime, limit: int, of_batches: bool) -> list[MediaJob]:
    """Jobs that no worker has begun, and that nobody touched since then: those of batches, or the others."""
    waiting = MediaJob.objects(active=True, state=JobState.QUEUED.value, updated_at__lte=untouched_since)
    batch = JobPriority.BATCH.value
    chosen = waiting.filter(priority=batch) if of_batches else waiting.filter(priority__ne=batch)
    return list(chosen.order_by("updated_at").limit(limit))


def unsent_jobs(*, now: datetime, limit: int) -> list[MediaJob]:
    """Jobs that wait, may be picked, and whose message could not be sent; those not touched for longest first."""
    may_be_picked = Q(not_before=None) | Q(not_before__lte=now)
    unsent = MediaJob.objects(may_be_picked, unsent=True, active=True, state=JobState.QUEUED.value)
    return list(unsent.order_by("updated_at").limit(limit))


def count_active_in_all_and_of(key_prefix: str, *, limit: int, limit_of_key: int) -> tuple[int, int]:
    """How many jobs run or wait of all keys, and of one; each stops counting at its limit. One question to MongoDB."""
    jobs, active = MediaJob._get_collection(), {"active": True}
    own = [{"$match": {**active, "key_prefix": key_prefix}}, {"$limit": max(1, limit_of_key)}, {"$count": "own"}]
    and_own = {"$unionWith": {"coll": jobs.name, "pipeline": own}}
    both = [{"$match": active}, {"$limit": max(1, limit)}, {"$count": "all"}, and_own]
    counts: dict[str, int] = {}
    for count in jobs.aggregate(both):
        counts |= count
    return counts.get("all", 0), counts.get("own", 0)


def count_clips(*, key_prefix: str, since: datetime, limit: int) -> int:
    """How many clips a key has had made since then; stops counting at ``limit``."""
    made = MediaJob.objects(key_prefix=key_prefix, clip=True, created_at__gte=since)
    return int(made.limit(limit).count(with_limit_and_skip=True))


def unannounced_jobs(*, ended_before: datetime, limit: int) -> list[MediaJob]:
    """Ended jobs whose webhooks nobody has noted yet, oldest first."""
    return list(MediaJob.objects(announced=False, finished_at__lte=ended_before).order_by("finished_at").limit(limit))


def next_batch_job() -> MediaJob | None:
    """The job of a batch that is next in line, if one waits."""
    waiting = {"active": True, "state": JobState.QUEUED.value, "priority": JobPriority.BATCH.value}
    return cast("MediaJob | None", MediaJob.objects(**waiting).order_by("turn").only("id").first())


def find_info_record(video_id: str) -> VideoInfoRecord | None:
    """What is on record about a video, fresh or not."""
    return VideoInfoRecord.by_id(video_id)


def find_lookup(record_id: str) -> LookupRecord | None:
    """What is on record about a question, fresh or not."""
    return cast("LookupRecord | None", LookupRecord.objects(id=record_id).first())


def find_ticket(ticket_id: str) -> MediaTicket | None:
    """A bot's order by its id, until a day has passed."""
    return cast("MediaTicket | None", MediaTicket.objects(id=ticket_id).first())


def find_batch(batch_id: str) -> Batch | None:
    """A batch by its id, until a week has passed."""
    return cast("Batch | None", Batch.objects(id=batch_id).first())


def oldest_open_batches(*, key_prefix: str, limit: int) -> list[str]:
    """The ids of a key's batches with entries that are not started yet, oldest first."""
    own = Batch.objects(key_prefix=key_prefix, open=True)
    return [batch.id for batch in own.order_by("created_at").only("id").limit(limit)]


def count_open_batches(*, key_prefix: str, limit: int) -> int:
    """How many of those a key has; stops counting at ``limit``."""
    return int(Batch.objects(key_prefix=key_prefix, open=True).limit(limit).count(with_limit_and_skip=True))


def batches_in_turn(*, of_each_key: int) -> list[str]:
    """The ids of every key's oldest open batches."""
    oldest = {"$firstN": {"input": "$_id", "n": of_each_key}}
    found = Batch._get_collection().aggregate(
        [
            {"$match": {"open": True}},
            {"$sort": {"open": 1, "key_prefix": 1, "created_at": 1}},
            {"$group": {"_id": "$key_prefix", "ids": oldest}},
        ]
    )
    return [batch_id for key in found for batch_id in key["ids"]]


def list_batches(*, key_prefix: str, skip: int, limit: int) -> tuple[list[Batch], int]:
    """A page of a key's batches, newest first, and how many there are in all."""
    own = Batch.objects(key_prefix=key_prefix)
    return list(own.order_by("-created_at").skip(skip).limit(limit)), int(own.count())


def waits_in_another_batch(job_id: str, *, key_prefix: str, but: str) -> bool:
    """Whether another batch of this key, not cancelled, has this job."""
    others = Batch.objects(key_prefix=key_prefix, id__ne=but, cancelled_at=None, entries__match={"job_id": job_id})
    return others.only("id").first() is not None


def jobs_by_id(job_ids: list[str]) -> dict[str, MediaJob]:
    return {job.id: job for job in MediaJob.objects(id__in=job_ids)}


def provider_settings() -> list[ProviderSettings]:
    """What an operator decided about sources."""
    return list(ProviderSettings.objects)


def list_identities(kind: IdentityKind) -> list[Identity]:
    """All cookies, or all proxies, by name."""
    return list(Identity.objects(kind=kind.value).order_by("name"))


def find_identity(identity_id: str) -> Identity | None:
    return cast("Identity | None", Identity.objects(id=identity_id).first())
