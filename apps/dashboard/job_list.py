"""The list of fetch jobs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.urls import reverse

from apps.dashboard.job_work import cancel, retry
from apps.dashboard.lists import Action, BulkAction, Cell, Column, Empty, Filter, ListSpec, age_filter, choices_filter
from apps.dashboard.selectors import with_titles
from apps.dashboard.templatetags.ui import human_bytes
from apps.downloads.documents import JobState, MediaJob
from apps.keys.people import is_person
from apps.telegram_cache.documents import MediaKind

SHOWN_FAILURES = 4
OPEN = [JobState.QUEUED.value, JobState.RUNNING.value]
ENDED = [JobState.DONE.value, JobState.FAILED.value, JobState.CANCELLED.value]
STATE_TONES = {
    JobState.QUEUED: "secondary",
    JobState.RUNNING: "info",
    JobState.DONE: "success",
    JobState.FAILED: "danger",
    JobState.CANCELLED: "warning",
}


def job_state(job: MediaJob) -> Cell:
    """The state; for a failed job what went wrong, for a running one what it is doing."""
    state = JobState(job.state)
    note = ""
    if state == JobState.FAILED:
        note = job.error_message or job.error_code or ""
    elif state == JobState.RUNNING:
        note = job.stage or ""
    elif state == JobState.QUEUED and job.error_message:
        note = f"{job.error_message} It is tried again by itself."
    return Cell(kind="badge", value=state.value, tone=STATE_TONES[state], note=note)


def job_progress(job: MediaJob) -> Cell:
    """Bytes so far, of how many if that is known, and how fast while it runs."""
    done = job.bytes_done or 0
    percent = round(100 * done / job.bytes_total) if job.active and job.bytes_total else None
    note = human_bytes(done)
    if job.bytes_total and job.bytes_total != done:
        note += f" of {human_bytes(job.bytes_total)}"
    if job.active and job.speed_bytes_per_s:
        note += f", {human_bytes(job.speed_bytes_per_s)}/s"
    return Cell(kind="progress", value=percent, note=note)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One source that was asked for a job, and what came of it. ``number``: in which attempt, from 1; 0: not known."""

    provider: str
    number: int = 0
    took_s: float | None = None
    word: str
    tone: str
    icon: str
    text: str = ""


def job_attempts(job: MediaJob) -> list[Attempt]:
    """Every source that was asked, oldest first; last the one that served it or is being asked now."""
    attempts = [
        Attempt(
            provider=str(error.get("provider") or "a source"),
            number=int(error.get("attempt") or 0),
            took_s=error.get("took_s"),
            word="failed",
            tone="danger",
            icon="x-circle",
            text=f"{error.get('message') or ''} ({error.get('code')})".strip(),
        )
        for error in job.provider_errors
    ]
    if job.provider and job.state == JobState.DONE:
        took_s = job.provider_took_s
        attempts.append(
            Attempt(provider=job.provider, took_s=took_s, word="served it", tone="success", icon="check-circle")
        )
    elif job.provider and job.state == JobState.RUNNING:
        attempts.append(Attempt(provider=job.provider, word="at work", tone="info", icon="download-cloud"))
    return attempts


def job_keys(job: MediaJob) -> list[Cell]:
    """Who asked for it, who was first at the top; people of the admin once."""
    cells: dict[str, Cell] = {}
    for prefix in dict.fromkeys((job.key_prefix or "", *job.joined_by)):
        if prefix:
            cell = _key_cell(prefix)
            cells.setdefault(str(cell.value), cell)
    return list(cells.values())


def _source(job: MediaJob) -> Cell:
    """Which source serves it and how long that took; why others could not. How long those took is on the job's page."""
    failures = Counter((str(error.get("provider")), str(error.get("code"))) for error in job.provider_errors)
    failed = [
        f"{provider}: {code.replace('_', ' ')}" + (f", {times} times" if times > 1 else "")
        for (provider, code), times in failures.items()
    ]
    return Cell(value=f"{job.provider or ''}{_seconds(job.provider_took_s)}", note="; ".join(failed[-SHOWN_FAILURES:]))


def _seconds(took_s: float | None) -> str:
    return "" if took_s is None else f" ({took_s:.1f} s)"


def _key_cell(prefix: str) -> Cell:
    if is_person(prefix):
        return Cell(value="the admin")
    return Cell(kind="code", value=prefix, href=reverse("dashboard:keys-detail", args=[prefix]) if prefix else "")


def job_href(job: MediaJob) -> str:
    """The job's page."""
    return reverse("dashboard:jobs-detail", args=[job.id])


def _video(job: MediaJob, title: str) -> Cell:
    """The title, with the id below it; the id alone while the title is not known."""
    return Cell(value=title, href=job_href(job), note=job.video_id if title != job.video_id else "")


def _actions(job: MediaJob) -> list[Action]:
    if job.active:
        href = reverse("dashboard:jobs-cancel", args=[job.id])
        return [Action(label="Cancel", icon="x", href=href, tone="danger")]
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return [Action(label="Try again", icon="rotate-cw", href=reverse("dashboard:jobs-retry", args=[job.id]))]
    return []


JOB_LIST = ListSpec(
    document=MediaJob,
    sort="-created_at",
    columns=(
        Column(label="Video", cells=lambda jobs: [_video(job, title) for job, title in with_titles(jobs)]),
        Column(label="Kind", cell=lambda job: Cell(value=job.kind, note=job.variant)),
        Column(label="State", cell=job_state),
        Column(label="Source", cell=_source),
        Column(label="Progress", cell=job_progress),
        Column(label="Key", cell=lambda job: _key_cell(job.key_prefix or "")),
        Column(label="Asked for", sort="created_at", cell=lambda job: Cell(kind="time", value=job.created_at)),
        Column(label="Ended", sort="finished_at", cell=lambda job: Cell(kind="time", value=job.finished_at)),
    ),
    exact_fields=("video_id", "_id", "key_prefix", "asset_id"),
    search_hint="A video id, job id or key prefix",
    filters=(
        Filter(
            name="active",
            label="When",
            choices=(("yes", "Running or waiting"), ("no", "Ended")),
            where=lambda value: {"state": {"$in": OPEN if value == "yes" else ENDED}},
        ),
        choices_filter("state", "State", tuple((state.value, state.value) for state in JobState), always=True),
        choices_filter("kind", "Kind", tuple((kind.value, kind.value) for kind in MediaKind), always=True),
        age_filter("created_at", label="Asked for"),
    ),
    exclude=("resume",),
    row_actions=_actions,
    bulk_actions=(
        BulkAction(
            name="cancel",
            label="Cancel",
            icon="x",
            question="Cancel {things}?",
            text="Everybody who waits for these gets an error. The next request for one starts it again.",
            run=cancel,
            done="{things} cancelled.",
            tone="danger",
        ),
        BulkAction(
            name="retry",
            label="Try again",
            icon="rotate-cw",
            question="Try {things} again?",
            text="What failed or was cancelled is fetched anew, as if somebody had asked for it now.",
            run=retry,
            done="{things} started again.",
        ),
    ),
    name=lambda job: f"{job.video_id} ({job.kind}, {job.variant})",
    things=("job", "jobs"),
    live_s=3,
    empty=Empty(
        title="No jobs yet",
        text="A job starts when somebody asks for a video that is not in the cache. It is kept here for 30 days.",
        icon="download-cloud",
        href="/admin/try",
        label="Try a link",
    ),
)
