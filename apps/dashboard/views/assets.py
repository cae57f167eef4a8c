"""The cache: list, and one asset with its parts and jobs."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, problem
from apps.dashboard.asset_list import ASSET_LIST, asset_state
from apps.dashboard.lists import answer_list
from apps.telegram_cache.selectors import find_asset


@admin_page()
def asset_list(request: AdminRequest) -> HttpResponse:
    return answer_list(request, ASSET_LIST, title="Cache")


@admin_page()
def asset_detail(request: AdminRequest, asset_id: str) -> HttpResponse:
    asset = find_asset(asset_id)
    if asset is None:
        return problem(request, 404, "This is not in the cache.", "It may have been removed since the list was shown.")
    context = {"asset": asset, "state": asset_state(asset), "jobs": selectors.asset_jobs(asset_id)}
    return render(request, "dashboard/assets/detail.html", context)
