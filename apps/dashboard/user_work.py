"""What the admin does with users, one at a time or many at once. Each goes to the audit log."""

from __future__ import annotations

from apps.core.errors import RoleMissing
from apps.dashboard.access import AdminRequest, who
from apps.keys.changes import delete_user, update_user
from apps.keys.documents import User
from apps.keys.roles import may_change_user
from apps.keys.selectors import has_admin_key

OWNERS_ONLY = "Only an owner may change people who may enter the admin, or who have a key with the scope admin."


def gains_power(user: User) -> bool:
    """Whether switching them on gives somebody what an owner may: then people are asked for their password again."""
    return has_admin_key(user.username)


def switch(request: AdminRequest, user: User, *, active: bool) -> bool:
    """Switch all keys of a user on or off; False when they were so already.

    Raises RoleMissing, NotFound, and Conflict for people of the admin.
    """
    _check_role(request, user)
    changed: bool = user.active != active
    if changed:
        update_user(user.username, {"active": active}, **who(request))
    return changed


def delete(request: AdminRequest, user: User) -> None:
    """Delete a user. Raises RoleMissing, NotFound, and Conflict for one who has keys or a role."""
    _check_role(request, user)
    delete_user(user.username, **who(request))


def _check_role(request: AdminRequest, user: User) -> None:
    if not may_change_user(request.admin_user.role, user):
        raise RoleMissing(OWNERS_ONLY)
