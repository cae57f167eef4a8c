"""Waiting for a file in a thread, for commands. Requests wait on the event loop instead (Suspend)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from apps.core.errors import NotReady, UpstreamTimeout
from apps.core.heartbeats import idle_queues
from apps.core.suspend import Suspend
from apps.core.wake import wait
from apps.downloads.services.media import MediaAsk, MediaState, Tier, request_media

RECHECK_S = 0.5
NEEDED_QUEUES = frozenset({"resolve", "fetch"})
NO_WORKER = (
    "No worker answers, so nothing can be fetched. Start the server (`manage.py up`), or look at its worker logs."
)


def follow_media(ask: MediaAsk, *, timeout_s: float) -> Iterator[MediaState | None]:
    """Start or join the fetch and yield how it stands, again and again; the last one is the finished file.

    None while the metadata is asked for. Raises what ``request_media`` raises, NotReady when there is something to
    fetch and no worker lives, and UpstreamTimeout after ``timeout_s`` (the fetch itself goes on then).
    """
    started_at = time.monotonic()
    workers_seen = False
    while True:
        waited_s = time.monotonic() - started_at
        state: MediaState | None = None
        try:
            state = request_media(ask, key_prefix="", wait_s=0, waited_s=waited_s)
            topic = f"asset:{state.asset.id}"
        except Suspend as pending:
            topic = pending.topic
        yield state
        if state is not None and state.tier is not Tier.EXTERNAL:
            return
        if waited_s >= timeout_s:
            raise UpstreamTimeout(f"Not there after {timeout_s:.0f} s. The fetch goes on; ask again later.")
        if not workers_seen and NEEDED_QUEUES & set(idle_queues()):
            raise NotReady(NO_WORKER)
        workers_seen = True
        wait(topic, timeout_s=RECHECK_S)
