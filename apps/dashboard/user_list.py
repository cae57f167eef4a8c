"""The list of users: whom keys belong to."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.dashboard.key_forms import LIMIT_LABELS, limit_words
from apps.dashboard.lists import Action, Cell, Column, Empty, Filter, ListSpec, delete_action, switch_actions
from apps.dashboard.user_work import delete, gains_power, switch
from apps.keys.documents import LIMIT_NAMES, Role, User


def user_state(user: User) -> Cell:
    """Whether their keys work, in one word."""
    if user.active:
        return Cell(kind="badge", value="on", tone="success")
    return Cell(kind="badge", value="off", tone="warning")


def plan_of(user: User) -> list[tuple[str, str]]:
    """The limits that their keys start from: label, and the limit in words."""
    limits = [(name, getattr(user, name)) for name in LIMIT_NAMES]
    return [(LIMIT_LABELS[name], limit_words(name, value)) for name, value in limits if value is not None]


def href(user: User, action: str = "detail") -> str:
    return reverse(f"dashboard:users-{action}", args=[user.username])


def _plan(user: User) -> Cell:
    limits = plan_of(user)
    if not limits:
        return Cell(value="default")
    return Cell(value=f"{limits[0][0]}: {limits[0][1]}", note=f"and {len(limits) - 1} more" if limits[1:] else "")


def _where_active(state: str) -> dict[str, Any]:
    return {"active": state == "on"}


USER_ACTIONS = (
    *switch_actions(
        switch,
        on_text="Their keys work again within a second.",
        off_text="None of their keys works any more, within a second.",
        asks_again=gains_power,
    ),
    delete_action(delete, text="Only users without keys, who may not enter the admin, can be deleted."),
)
USER_LIST = ListSpec(
    document=User,
    sort="username",
    columns=(
        Column(
            label="User",
            sort="username",
            cell=lambda user: Cell(value=user.username, href=href(user), note=user.name or user.contact),
        ),
        Column(label="State", cell=user_state),
        Column(label="Plan", cell=_plan),
        Column(
            label="Admin",
            cell=lambda user: Cell(kind="badges", value=[] if user.role == Role.NONE.value else [user.role]),
        ),
        Column(label="Created", cell=lambda user: Cell(kind="time", value=user.created_at)),
    ),
    search_hint="Search username, name or contact",
    filters=(Filter(name="state", label="State", choices=(("on", "On"), ("off", "Off")), where=_where_active),),
    row_actions=lambda user: [Action(label="Change", icon="edit-2", href=href(user, "edit"))],
    bulk_actions=USER_ACTIONS,
    exclude=("password_hash", "recovery_hashes"),
    things=("user", "users"),
    empty=Empty(
        title="No users yet",
        text="A user is whom keys belong to: a customer, a bot, a team. Their plan says what their keys start from.",
        icon="users",
        href="/admin/users/new",
        label="Add a user",
    ),
)
