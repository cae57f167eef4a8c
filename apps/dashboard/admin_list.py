"""The list of people who may enter the admin."""

from __future__ import annotations

from django.urls import reverse

from apps.dashboard.lists import Cell, Column, Empty, ListSpec, choices_filter
from apps.keys.documents import Role, User
from apps.keys.second_factor import has_second_factor


def admin_state(user: User) -> Cell:
    """Whether somebody may log in, in one word."""
    if user.active:
        return Cell(kind="badge", value="on", tone="success")
    return Cell(kind="badge", value="off", tone="warning")


def _second_factor(user: User) -> Cell:
    if has_second_factor(user):
        return Cell(kind="badge", value="yes", tone="success")
    return Cell(kind="badge", value="no", tone="secondary")


ADMIN_LIST = ListSpec(
    document=User,
    sort="username",
    only={"role": {"$ne": Role.NONE.value}},
    columns=(
        Column(
            label="Name",
            sort="username",
            cell=lambda user: Cell(
                value=user.username, href=reverse("dashboard:admins-detail", args=[str(user.id)]), note=user.contact
            ),
        ),
        Column(label="Role", cell=lambda user: Cell(kind="badges", value=[user.role])),
        Column(label="State", cell=admin_state),
        Column(label="Second factor", cell=_second_factor),
        Column(label="Last login", cell=lambda user: Cell(kind="time", value=user.last_login_at, note="never")),
    ),
    search_hint="Search name or contact",
    filters=(choices_filter("role", "Role", tuple((role.value, role.value) for role in Role if role != Role.NONE)),),
    exclude=("password_hash", "recovery_hashes"),
    things=("person", "people"),
    empty=Empty(title="Nobody fits", text="Try other words or another role.", icon="users"),
)
