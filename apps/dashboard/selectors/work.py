"""What is being worked on, and what waits: queues, bots, the names of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.core.heartbeats import QUEUES, idle_queues
from apps.core.queues import waiting_messages
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.selectors import count_active_jobs
from apps.telegram_cache.documents import BotState, TelegramBot
from apps.telegram_cache.selectors import titles_of

SHOWN_BOTS = 8
SHOWN_JOBS = 8
MAX_SORTED = 200
MAX_COUNTED = 5000
DOES = {
    "resolve": "metadata",
    "fetch": "fetching media",
    "upload": "sending to Telegram",
    "care": "looking after the rest",
}


@dataclass(frozen=True, kw_only=True)
class Queue:
    """One queue of the workers. ``waiting``: tasks that nobody has begun."""

    name: str
    does: str
    waiting: int
    is_idle: bool  # no worker takes from it


def queues() -> list[Queue]:
    """Every queue. What waits to be fetched is counted in MongoDB, where the order of jobs is. Raises RedisError."""
    lengths = waiting_messages()
    lengths["fetch"] = count_active_jobs(limit=MAX_COUNTED, state=JobState.QUEUED)
    idle = set(idle_queues())
    return [Queue(name=name, does=DOES[name], waiting=lengths[name], is_idle=name in idle) for name in QUEUES]


def jobs_at_work() -> list[MediaJob]:
    """Jobs that run, in the order in which they began, then those that wait, next in line first: each keeps its place
    from one look to the next. At most SHOWN_JOBS."""
    by_state = {
        state: MediaJob.objects(active=True, state=state.value) for state in (JobState.RUNNING, JobState.QUEUED)
    }
    running = list(by_state[JobState.RUNNING].exclude("resume").limit(MAX_SORTED))
    running.sort(key=lambda job: (job.started_at or job.created_at, job.id))
    jobs = running[:SHOWN_JOBS]
    batch = JobPriority.BATCH.value
    waiting = by_state[JobState.QUEUED]
    for line in (waiting.filter(priority__in=[JobPriority.INTERACTIVE.value, None]), waiting.filter(priority=batch)):
        if (places := SHOWN_JOBS - len(jobs)) > 0:
            jobs += line.exclude("resume").order_by("turn", "created_at").limit(places)
    return jobs


def bots_at_work() -> list[TelegramBot]:
    """Bots that are in use: those that rest first, the soonest to go on at the top. At most SHOWN_BOTS."""
    bots = list(TelegramBot.objects(state__ne=BotState.DISABLED.value).exclude("token_encrypted").limit(500))
    far = max((bot.until for bot in bots if bot.until), default=None)

    def place(bot: TelegramBot) -> tuple[bool, Any, str]:
        return not bot.is_resting, bot.until or far or 0, bot.bot_id

    return sorted(bots, key=place)[:SHOWN_BOTS]


def with_titles(jobs: Sequence[MediaJob]) -> list[tuple[MediaJob, str]]:
    """Each job with its video's title, or its id while the title is not known. One query."""
    titles = titles_of(job.asset_id for job in jobs)
    return [(job, titles.get(job.asset_id) or job.video_id) for job in jobs]
