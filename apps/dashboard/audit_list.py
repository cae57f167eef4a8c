"""The list of the audit log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.core.documents import AuditEntry
from apps.core.tunables import TUNABLES
from apps.dashboard.amounts import amount_words, unit_of
from apps.dashboard.audit_words import WORDS, action_words
from apps.dashboard.lists import Cell, Column, Empty, Filter, ListSpec, age_filter, choices_filter

TARGET_KINDS = (
    ("user", "user"), ("key", "API key"), ("asset", "file"), ("job", "job"), ("warm_up", "warm-up"), ("cache", "cache"),
    ("bot", "bot"), ("channel", "channel"), ("provider", "source"), ("cookies", "cookies"), ("proxy", "proxy"),
    ("po_token", "PO tokens"), ("setting", "setting"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Actions that somebody looks for together. ``verbs``: what stands behind the kind of thing in their names."""

    label: str
    verbs: frozenset[str]

    @property
    def actions(self) -> frozenset[str]:
        return frozenset(action for action in WORDS if _verb(action) in self.verbs)


def _verb(action: str) -> str:
    return re.split(r"[. ]", action, maxsplit=1)[1]


def _group(label: str, verbs: str) -> Group:
    return Group(label, frozenset(verbs.split()))


WHAT = {
    "login": _group("Logging in", "done done_by_recovery_code failed code_failed confirmed wrong end"),
    "create": _group("Added", "create add make import new_recovery_codes"),
    "change": _group("Changed", "change update role rotate token reset_password reset_second_factor set order settings "
                     "default limits replace"),
    "activate": _group("Switched on", "activate enable on resume"),
    "deactivate": _group("Switched off", "deactivate disable off revoke pause"),
    "delete": _group("Removed", "delete remove removed evict"),
    "cancel": _group("Cancelled", "cancel"),
    "work": _group("Fetched, checked, sent", "fetch refetch retry warm verify repair upload check rekey test again"),
}  # fmt: skip


def changes(entry: AuditEntry) -> list[tuple[str, str | None, str]]:
    """Each field that changed: its name, what it was (None: nothing), what it is now. A field that is only in
    ``before`` says of what somebody did something, so it is shown as it was."""
    names = dict.fromkeys((*entry.before, *entry.after))
    return [
        (
            name.removesuffix("_s").replace("_", " "),
            _text(entry.before[name], _unit(entry, name)) if name in entry.before and name in entry.after else None,
            _text((entry.after if name in entry.after else entry.before)[name], _unit(entry, name)),
        )
        for name in names
        if (entry.before.get(name) or entry.after.get(name) is not None)
        and not (name in entry.before and name in entry.after and entry.before[name] == entry.after[name])
    ]


def _unit(entry: AuditEntry, name: str) -> str:
    if entry.target_kind == "setting" and entry.target_id in TUNABLES:
        return TUNABLES[entry.target_id].unit
    return unit_of(name)


def _text(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return amount_words(value, unit)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M UTC")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


AUDIT_LIST = ListSpec(
    document=AuditEntry,
    sort="-at",
    columns=(
        Column(label="When", sort="at", cell=lambda entry: Cell(kind="time", value=entry.at)),
        Column(label="Who", cell=lambda entry: Cell(value=entry.actor, note=entry.address)),
        Column(label="What", cell=lambda entry: Cell(value=action_words(entry.action), note=entry.action)),
        Column(label="To", cell=lambda entry: Cell(value=f"{entry.target_kind} {entry.target_id}")),
        Column(label="Change", cell=lambda entry: Cell(kind="changes", value=changes(entry))),
    ),
    exact_fields=("address", "request_id"),
    search_hint="Search who, what or to which",
    filters=(
        choices_filter("about", "About", TARGET_KINDS, field="target_kind"),
        Filter(
            name="what",
            label="What",
            choices=tuple((name, group.label) for name, group in WHAT.items()),
            where=lambda value: {"action": {"$in": sorted(WHAT[value].actions)}},
        ),
        age_filter("at"),
    ),
    empty=Empty(
        title="Nothing has been changed yet", text="Every change made in the admin is noted here.", icon="list"
    ),
)
