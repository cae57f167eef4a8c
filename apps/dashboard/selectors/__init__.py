"""Reads for the admin's pages that no other app has a use for."""

from apps.dashboard.selectors.figures import Figures, figures
from apps.dashboard.selectors.health import Health, health, parts_that_take_time, telegram_health
from apps.dashboard.selectors.history import asset_jobs, history, history_of_kind
from apps.dashboard.selectors.requests import KeyUsage, key_usage
from apps.dashboard.selectors.system import ShownSetting, shown_settings, versions
from apps.dashboard.selectors.work import Queue, bots_at_work, queues, with_titles

__all__ = [
    "Figures",
    "Health",
    "KeyUsage",
    "Queue",
    "ShownSetting",
    "asset_jobs",
    "bots_at_work",
    "figures",
    "health",
    "history",
    "history_of_kind",
    "key_usage",
    "parts_that_take_time",
    "queues",
    "shown_settings",
    "telegram_health",
    "versions",
    "with_titles",
]
