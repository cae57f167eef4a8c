"""Reads for the admin's pages that no other app has a use for."""

from apps.dashboard.selectors.figures import Figures, figures
from apps.dashboard.selectors.health import Health, health
from apps.dashboard.selectors.history import asset_jobs, history
from apps.dashboard.selectors.requests import KeyUsage, Minutes, key_usage, last_hour

__all__ = [
    "Figures",
    "Health",
    "KeyUsage",
    "Minutes",
    "asset_jobs",
    "figures",
    "health",
    "history",
    "key_usage",
    "last_hour",
]
