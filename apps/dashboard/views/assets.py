"""The cache: list, one asset with its player, parts and jobs, and what can be done with it."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem
from apps.dashboard.asset_list import ASSET_LIST, asset_state, asset_tiers
from apps.dashboard.asset_work import WORKS, play_link, works_for
from apps.dashboard.job_list import job_href, job_progress
from apps.dashboard.lists import answer_list
from apps.dashboard.pages import confirm_page
from apps.downloads.selectors import active_job
from apps.keys.documents import Role
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.selectors import find_asset


@admin_page(methods=("GET", "HEAD", "POST"))
def asset_list(request: AdminRequest) -> HttpResponse:
    return answer_list(request, ASSET_LIST, title="Cache")


@admin_page()
def asset_detail(request: AdminRequest, asset_id: str) -> HttpResponse:
    asset = find_asset(asset_id)
    if asset is None:
        return _not_there(request)
    job = active_job(asset_id)
    is_fetched = asset.state == AssetState.FETCHING
    can_play = asset.is_finished or (is_fetched and job is not None)
    tiers = asset_tiers(asset)
    context = {
        "job": job,
        "job_progress": job_progress(job) if job else None,
        "job_href": job_href(job) if job else "",
        "is_ending": is_fetched and job is None,  # cancelled or failed just now: its fetch stops within a moment
        "asset": asset,
        "state": asset_state(asset),
        "tiers": tiers,
        "jobs": selectors.asset_jobs(asset_id),
        "history": selectors.history("asset", asset_id),
        "play_href": play_link(request.admin_user, asset) if can_play else "",
        "preload": "none" if tiers == ["telegram"] else "metadata",  # a look at the page brings nothing back from there
        "verify_begun_at": _verify_without_result(asset),
        "works": works_for(request.admin_user, asset),
    }
    return render(request, "dashboard/assets/detail.html", context)


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def asset_work(request: AdminRequest, asset_id: str, name: str) -> HttpResponse:
    """Ask, then do one of WORKS with an asset."""
    asset = find_asset(asset_id)
    work = WORKS.get(name)
    if asset is None or work is None:
        return _not_there(request)

    def do() -> str:
        work.do(request, asset)
        return work.done

    return confirm_page(
        request,
        title=work.question,
        text=f"{asset.title or asset.video_id} ({asset.kind}, {asset.variant}). {work.text}",
        label=work.label,
        tone=work.tone,
        icon=work.icon,
        back=reverse("dashboard:assets-detail", args=[asset_id]),
        back_label=asset.title or asset.video_id,
        do=do,
    )


def _verify_without_result(asset: Asset) -> datetime | None:
    """When the last verification began, unless it found everything right."""
    begun = asset.verify_tried_at
    return begun if begun and (asset.verified_at is None or asset.verified_at < begun) else None


def _not_there(request: AdminRequest) -> HttpResponse:
    return problem(request, 404, "This is not in the cache.", "It may have been removed since the list was shown.")
