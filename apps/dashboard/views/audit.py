"""The audit log."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from apps.dashboard.access import AdminRequest, admin_page
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.lists import read_page


@admin_page()
def audit_list(request: AdminRequest) -> HttpResponse:
    page = read_page(AUDIT_LIST, request.GET.dict(), can_change=False)
    return render(request, "dashboard/audit.html", {"page": page, "can_change": False})
