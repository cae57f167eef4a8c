"""Fetch jobs: list, cancel."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.dashboard.access import AdminRequest, admin_page, may, problem, record_change
from apps.dashboard.job_list import JOB_LIST
from apps.dashboard.lists import read_page
from apps.downloads.selectors import find_job
from apps.downloads.services.jobs import cancel_job
from apps.keys.documents import Role


@admin_page()
def job_list(request: AdminRequest) -> HttpResponse:
    can_change = may(request.admin_user, Role.OPERATOR)
    page = read_page(JOB_LIST, request.GET.dict(), can_change=can_change)
    return render(request, "dashboard/jobs/list.html", {"page": page, "can_change": can_change})


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def job_cancel(request: AdminRequest, job_id: str) -> HttpResponse:
    """Ask, then stop the job. One that ended in the meantime stays as it is."""
    job = find_job(job_id)
    if job is None:
        return problem(request, 404, "There is no such job.", "Ended jobs are forgotten after 30 days.")
    if request.method != "POST" and job.active:
        context = {
            "title": "Cancel this job?",
            "text": f"Everybody who waits for {job.video_id} ({job.kind}, {job.variant}) gets an error. "
            "The next request for it starts again.",
            "label": "Cancel the job",
            "tone": "danger",
            "icon_name": "x",
            "back": reverse("dashboard:jobs"),
            "back_label": "Jobs",
        }
        return render(request, "dashboard/confirm.html", context)
    ended = cancel_job(job_id) if job.active else job
    if job.active and ended.state == "cancelled":
        before = {"state": job.state, "video_id": job.video_id, "variant": job.variant}
        after = {"state": ended.state}
        record_change(request, "job.cancel", target_kind="job", target_id=job_id, before=before, after=after)
        messages.success(request, f"The job for {job.video_id} was cancelled.")
    else:
        messages.info(request, f"The job for {job.video_id} had ended already: {ended.state}.")
    return redirect("dashboard:jobs")
