"""Fetch jobs: list, cancel, try again."""

from __future__ import annotations

from dataclasses import replace

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem
from apps.dashboard.job_list import JOB_LIST, job_attempts, job_keys, job_progress, job_state
from apps.dashboard.job_work import cancel, retry
from apps.dashboard.lists import answer_list
from apps.dashboard.pages import confirm_page
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.selectors import find_job
from apps.keys.documents import Role
from apps.telegram_cache.selectors import find_asset


@admin_page(methods=("GET", "HEAD", "POST"))
def job_list(request: AdminRequest) -> HttpResponse:
    return answer_list(request, JOB_LIST, title="Jobs")


@admin_page()
def job_detail(request: AdminRequest, job_id: str) -> HttpResponse:
    """One job: how far it is, which sources were asked, who asked for it."""
    job = find_job(job_id)
    if job is None:
        return _no_such_job(request)
    ((_, title),) = selectors.with_titles([job])
    context = {
        "job": job,
        "title": title,
        "state": replace(job_state(job), note="")
        if job.state == JobState.RUNNING
        else job_state(job),  # its card tells, live
        "progress": job_progress(job),
        "asset": find_asset(job.asset_id),
        "attempts": job_attempts(job),
        "keys": job_keys(job),
        "took_s": (job.finished_at - job.created_at).total_seconds() if job.finished_at else None,
        "history": selectors.history("job", job_id),
    }
    return render(request, "dashboard/jobs/detail.html", context)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def job_cancel(request: AdminRequest, job_id: str) -> HttpResponse:
    """Ask, then stop the job. One that ended in the meantime stays as it is."""
    job = find_job(job_id)
    if job is None:
        return _no_such_job(request)
    if request.method != "POST" and not job.active:
        messages.info(request, f"The job for {job.video_id} had ended already: {job.state}.")
        return redirect("dashboard:jobs")

    def do() -> str:
        cancel(request, job)
        return f"The job for {job.video_id} was cancelled."

    return confirm_page(
        request,
        title="Cancel this job?",
        text=f"Everybody who waits for {_what(job)} gets an error. The next request for it starts again.",
        label="Cancel the job",
        tone="danger",
        icon="x",
        back=reverse("dashboard:jobs"),
        back_label="Jobs",
        do=do,
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def job_retry(request: AdminRequest, job_id: str) -> HttpResponse:
    job = find_job(job_id)
    if job is None:
        return _no_such_job(request)

    def do() -> HttpResponse:
        again = retry(request, job)
        messages.success(request, f"The fetch of {job.video_id} was started again.")
        if find_job(again.id) is None:  # the file is there meanwhile, and the job that brought it is forgotten
            return redirect("dashboard:assets-detail", job.asset_id)
        return redirect("dashboard:jobs-detail", again.id)

    return confirm_page(
        request,
        title="Try this job again?",
        text=f"{_what(job)[:1].upper()}{_what(job)[1:]} is fetched anew, as if somebody had asked for it now.",
        label="Try again",
        icon="rotate-cw",
        back=reverse("dashboard:jobs"),
        back_label="Jobs",
        do=do,
    )


def _what(job: MediaJob) -> str:
    return f"{job.video_id} ({job.kind}, {job.variant})"


def _no_such_job(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "There is no such job.", "Ended jobs are forgotten after 30 days.")
