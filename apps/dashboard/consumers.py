"""The websocket of the live dashboard."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from apps.core.asgi import Scope, header
from apps.dashboard.live.moment import history_text
from apps.dashboard.live.publisher import GROUP, publisher
from apps.dashboard.sockets import FORBIDDEN, AdminConsumer


class LiveConsumer(AdminConsumer):
    """``/ws/admin/live``: the last hour at once, then every second the moment. Only for pages of this very address."""

    async def connect(self) -> None:
        if is_own_page(self.scope):
            await super().connect()
            return
        await self.accept()
        await self.close(FORBIDDEN)

    async def run(self) -> None:
        await self.send(text_data=await asyncio.to_thread(history_text))
        await self.channel_layer.group_add(GROUP, self.channel_name)
        publisher().enter()
        try:
            await asyncio.Event().wait()  # until the session or the connection ends
        finally:
            publisher().leave()
            await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def live_moment(self, message: dict[str, Any]) -> None:
        """From the publisher, wherever it runs."""
        await self.send(text_data=message["text"])


def is_own_page(scope: Scope) -> bool:
    """Whether the page that opens the socket came from the very address that it calls, or from PUBLIC_URL.

    ALLOWED_HOSTS (checked before) says nothing of ports, and cookies neither.
    """
    origin = urlsplit(header(scope, b"origin") or "").netloc.lower()
    own = {(header(scope, b"host") or "").lower(), urlsplit(settings.ENV.base_url).netloc.lower()}
    return origin in own - {""}
