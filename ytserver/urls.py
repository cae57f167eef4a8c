"""Every address that Django answers; ``/stream/...`` and websockets are answered beside it (ytserver/asgi.py)."""

from __future__ import annotations

from django.urls import include, path
from django.views.generic import RedirectView

from apps.analytics.metrics_view import metrics_view
from apps.downloads.dialects.urls import dialect_patterns
from apps.downloads.views.docs import DocsView, SchemaView
from apps.downloads.views.key_login import key_login, key_logout

urlpatterns = [
    path("", include("apps.core.urls")),
    path("metrics", metrics_view, name="metrics"),
    path("admin/", include("apps.dashboard.urls")),
    path("", RedirectView.as_view(pattern_name="dashboard:overview", query_string=False)),
    path("admin", RedirectView.as_view(pattern_name="dashboard:overview", query_string=False)),
    path("api", RedirectView.as_view(pattern_name="api-root", query_string=True)),
    path("api/v1", RedirectView.as_view(pattern_name="api-root", query_string=True)),
    path("api/v1/", include("apps.analytics.urls")),
    path("api/v1/", include("apps.downloads.urls")),
    *dialect_patterns(),
    path("api/login", key_login, name="key-login"),
    path("api/logout", key_logout, name="key-logout"),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view(), name="docs"),
]

handler400 = "apps.core.api_errors.bad_request"
handler403 = "apps.core.api_errors.permission_denied"
handler404 = "apps.core.api_errors.page_not_found"
handler500 = "apps.core.api_errors.server_error"
