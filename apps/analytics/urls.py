"""The routes of analytics, below ``/api/v1/``."""

from __future__ import annotations

from rest_framework.routers import SimpleRouter

from apps.analytics.me import MeViewSet
from apps.analytics.views import AnalyticsViewSet

router = SimpleRouter(trailing_slash=False)
router.register("me", MeViewSet, basename="me")
router.register("admin/analytics", AnalyticsViewSet, basename="admin-analytics")

urlpatterns = router.urls
