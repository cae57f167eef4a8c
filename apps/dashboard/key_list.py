"""The list of API keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from apps.dashboard.key_work import delete, is_powerful, switch
from apps.dashboard.lists import Action, Cell, Column, Empty, Filter, ListSpec, delete_action, switch_actions
from apps.keys.documents import ApiKey

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def key_state(key: ApiKey) -> Cell:
    """Whether a key works, in one word."""
    if key.revoked_at is not None:
        return Cell(kind="badge", value="revoked", tone="danger")
    if not key.active:
        return Cell(kind="badge", value="off", tone="warning")
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return Cell(kind="badge", value="expired", tone="warning")
    return Cell(kind="badge", value="on", tone="success")


def _where_state(state: str) -> Mapping[str, Any]:
    now = datetime.now(UTC)
    conditions: dict[str, dict[str, Any]] = {  # each with ``active`` and ranges: an index alone can count them
        "on": {"active": True, "expires_at": {"$not": {"$lte": now}}},
        "off": {"active": False, "revoked_at": {"$not": {"$gte": EARLIEST}}},
        "expired": {"active": True, "expires_at": {"$lte": now}},
        "revoked": {"active": False, "revoked_at": {"$gte": EARLIEST}},
    }
    return conditions[state]


def _href(key: ApiKey, action: str = "detail") -> str:
    return reverse(f"dashboard:keys-{action}", args=[key.prefix])


def _actions(key: ApiKey) -> list[Action]:
    if key.revoked_at is not None:
        return []
    if key.active:
        return [Action(label="Switch off", icon="power", href=_href(key, "deactivate"), tone="danger")]
    return [Action(label="Switch on", icon="power", href=_href(key, "activate"), tone="success")]


KEY_ACTIONS = (
    *switch_actions(
        switch,
        on_text="They work again within a second, with the limits they had.",
        off_text="Requests with these are refused within a second, and their links and running streams end. "
        "You can switch them on again later.",
        asks_again=is_powerful,
    ),
    delete_action(
        delete,
        text="These, their links and their running streams stop within a second, for good. What they used stays in "
        "the figures.",
        asks_again=is_powerful,
    ),
)
KEY_LIST = ListSpec(
    document=ApiKey,
    sort="-created_at",
    columns=(
        Column(label="Name", sort="name", cell=lambda key: Cell(value=key.name, href=_href(key), note=key.owner)),
        Column(label="Prefix", cell=lambda key: Cell(kind="code", value=key.prefix)),
        Column(label="State", cell=key_state),
        Column(label="May use", cell=lambda key: Cell(kind="badges", value=key.scopes)),
        Column(
            label="Per hour",
            sort="limit_per_hour",
            numeric=True,
            cell=lambda key: (
                Cell(kind="number", value=key.limit_per_hour) if key.limit_per_hour else Cell(value="default")
            ),
        ),
        Column(
            label="Last used",
            sort="last_used_at",
            cell=lambda key: Cell(kind="time", value=key.last_used_at, note="never"),
        ),
        Column(label="Created", sort="created_at", cell=lambda key: Cell(kind="time", value=key.created_at)),
    ),
    search_hint="Search name, owner or prefix",
    filters=(
        Filter(
            name="state",
            label="State",
            choices=(("on", "On"), ("off", "Off"), ("expired", "Expired"), ("revoked", "Revoked")),
            where=_where_state,
        ),
    ),
    row_actions=_actions,
    bulk_actions=KEY_ACTIONS,
    name=lambda key: f"{key.name} ({key.prefix})",
    things=("key", "keys"),
    empty=Empty(
        title="No API keys yet",
        text="Programs need a key to use this server. Create one: it is shown once, with a line to try it.",
        icon="key",
        href="/admin/keys/new",
        label="Create a key",
    ),
)
