"""The cache: list, and one asset with its parts and jobs."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from apps.dashboard import selectors
from apps.dashboard.access import AdminRequest, admin_page, may, problem
from apps.dashboard.asset_list import ASSET_LIST, asset_state
from apps.dashboard.lists import read_page
from apps.keys.documents import Role
from apps.telegram_cache.selectors import find_asset


@admin_page()
def asset_list(request: AdminRequest) -> HttpResponse:
    can_change = may(request.admin_user, Role.OPERATOR)
    page = read_page(ASSET_LIST, request.GET.dict(), can_change=can_change)
    return render(request, "dashboard/assets/list.html", {"page": page, "can_change": can_change})


@admin_page()
def asset_detail(request: AdminRequest, asset_id: str) -> HttpResponse:
    asset = find_asset(asset_id)
    if asset is None:
        return problem(request, 404, "This is not in the cache.", "It may have been removed since the list was shown.")
    context = {"asset": asset, "state": asset_state(asset), "jobs": selectors.asset_jobs(asset_id)}
    return render(request, "dashboard/assets/detail.html", context)
