"""The admin's websockets. They go by the session's cookie, so only pages of our own may open them."""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from apps.dashboard.consumers import LiveConsumer

websocket_urlpatterns: list[Any] = [re_path(r"^ws/admin/live$", LiveConsumer.as_asgi())]
