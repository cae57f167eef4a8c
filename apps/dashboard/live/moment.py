"""Everything the live dashboard shows, at one moment: figures for its charts, and its pieces of page."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from django.template.loader import render_to_string

from apps.analytics.live import live_figures, live_history
from apps.core.machines import machines
from apps.dashboard import selectors
from apps.dashboard.job_list import job_progress, job_state
from apps.dashboard.telegram_lists import bot_state

PIECES = ("tiles", "jobs", "machine", "bots", "health", "states")
"""Each is ``dashboard/overview/_<name>.html``, and stands in the page in the element ``live-<name>``."""
HEALTH_FRESH_S = 5.0

_lock = threading.Lock()
_kept: dict[str, tuple[float, Any]] = {}


def read_moment() -> dict[str, Any]:
    """What the pieces' templates need. Raises redis.RedisError and PyMongoError."""
    figures = selectors.figures()
    return {
        "live": live_figures(),
        "figures": figures,
        "jobs": [
            {"job": job, "title": title, "state": job_state(job), "progress": job_progress(job)}
            for job, title in selectors.with_titles(figures.jobs)
        ],
        "bots": [{"bot": bot, "state": bot_state(bot)} for bot in selectors.bots_at_work()],
        "queues": selectors.queues(),
        "machines": machines(),
        "health": [
            *_fresh("health", selectors.parts_that_take_time, HEALTH_FRESH_S),
            selectors.telegram_health(),  # beside its bots, which are those of this moment
        ],
    }


def moment_text() -> str:
    """The message of one second: the figures, the last complete step of the charts, and every piece as it looks now."""
    moment = read_moment()
    pieces = {name: render_to_string(f"dashboard/overview/_{name}.html", moment) for name in PIECES}
    step = asdict(live_history(steps=1))
    return json.dumps({"type": "moment", "figures": asdict(moment["live"]), "step": step, "pieces": pieces})


def history_text() -> str:
    """The message that opens the charts: the last hour."""
    return json.dumps({"type": "history", **history()})


def history() -> dict[str, Any]:
    """The last hour, for the charts."""
    return asdict(live_history())


def _fresh(name: str, read: Callable[[], Any], max_age_s: float) -> Any:
    """What ``read`` gave at most ``max_age_s`` ago in this process. What it raises is not kept."""
    with _lock:
        read_at, value = _kept.get(name, (float("-inf"), None))
        if time.monotonic() - read_at >= max_age_s:
            value = read()
            _kept[name] = (time.monotonic(), value)
        return value
