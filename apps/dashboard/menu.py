"""The side bar: every section of the admin, in groups. A new section adds its line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.keys.documents import Role


@dataclass(frozen=True, kw_only=True)
class Entry:
    """``url_name`` without the namespace. Pages whose names begin with it and a dash belong to the section."""

    label: str
    icon: str
    url_name: str
    role: Role = Role.VIEWER  # who sees the entry

    def holds(self, url_name: str) -> bool:
        """Whether a page belongs to this section."""
        return url_name == self.url_name or url_name.startswith(f"{self.url_name}-")


@dataclass(frozen=True, kw_only=True)
class Group:
    label: str
    entries: Sequence[Entry]


MENU = (
    Group(
        label="Now",
        entries=(
            Entry(label="Overview", icon="activity", url_name="overview"),
            Entry(label="Jobs", icon="download-cloud", url_name="jobs"),
            Entry(label="Analytics", icon="bar-chart-2", url_name="analytics"),
        ),
    ),
    Group(
        label="Media",
        entries=(
            Entry(label="Cache", icon="film", url_name="assets"),
            Entry(label="Warm-ups", icon="sunrise", url_name="warm-ups"),
            Entry(label="Try it", icon="play-circle", url_name="try", role=Role.OPERATOR),
        ),
    ),
    Group(
        label="People",
        entries=(
            Entry(label="API keys", icon="key", url_name="keys"),
            Entry(label="Users", icon="users", url_name="users"),
            Entry(label="Admins", icon="shield", url_name="admins", role=Role.OWNER),
        ),
    ),
    Group(
        label="Server",
        entries=(
            Entry(label="Sources", icon="shuffle", url_name="sources"),
            Entry(label="Telegram", icon="send", url_name="telegram"),
            Entry(label="Settings", icon="sliders", url_name="settings"),
            Entry(label="System", icon="server", url_name="system"),
            Entry(label="Audit log", icon="list", url_name="audit"),
        ),
    ),
)
