"""Websockets of downloads. They are opened with a key or a job's id, never by a cookie, so any Origin may open them."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from apps.downloads.consumers import JobConsumer

websocket_urlpatterns: list[Any] = []
keyed_websocket_urlpatterns: list[Any] = [re_path(r"^ws/jobs/(?P<job_id>[A-Za-z0-9_-]{1,64})$", JobConsumer.as_asgi())]
