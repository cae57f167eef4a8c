"""Addresses that say how the server is."""

from __future__ import annotations

from django.urls import path

from apps.core.health import healthz, readyz

urlpatterns = [path("healthz", healthz, name="healthz"), path("readyz", readyz, name="readyz")]
