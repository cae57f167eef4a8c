"""The audit log."""

from __future__ import annotations

from django.http import HttpResponse

from apps.dashboard.access import AdminRequest, admin_page
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.lists import answer_list


@admin_page()
def audit_list(request: AdminRequest) -> HttpResponse:
    return answer_list(request, AUDIT_LIST, title="Audit log")
