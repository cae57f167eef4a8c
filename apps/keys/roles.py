"""What people who may enter the admin may do: a viewer sees, an operator works, an owner manages people and secrets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apps.keys.documents import Role, Scope, User
from apps.keys.selectors import has_admin_key

RANKS = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.OWNER: 3}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, kw_only=True)
class AdminGrant:
    """Somebody who is logged in to the admin and calls the API from there, without a key."""

    username: str
    role: Role
    prefix: str = ""
    scopes: frozenset[str] = frozenset({Scope.ADMIN.value})

    @property
    def is_authenticated(self) -> bool:
        """Django REST framework asks its users for this."""
        return True

    @property
    def actor(self) -> str:
        """Who this is in the audit log."""
        return self.username


def reaches(role: str, needed: Role) -> bool:
    """Whether ``role`` is ``needed`` or a higher one. Roles without entry to the admin never are."""
    return RANKS.get(Role(role), 0) >= RANKS[needed]


def may(user: User | None, role: Role) -> bool:
    """Whether the user has this role or a higher one."""
    return bool(user) and reaches(user.role, role)  # type: ignore[union-attr]


def role_needed(method: str, *, to_read: Role = Role.VIEWER, to_change: Role = Role.OPERATOR) -> Role:
    """The role that a request with this HTTP method needs."""
    return to_read if method in SAFE_METHODS else to_change


def may_change_key(role: str, scopes: Iterable[str]) -> bool:
    """Whether somebody with ``role`` may make or change a key that has (or gets) ``scopes``.

    A key with the scope admin may do what an owner may: whoever could make one, or learn its new secret, would be one.
    """
    return reaches(role, Role.OWNER if Scope.ADMIN in set(scopes) else Role.OPERATOR)


def may_change_user(role: str, user: User) -> bool:
    """Whether somebody with ``role`` may change this user: only owners touch people who may enter the admin, or who
    have a key with the scope admin."""
    if reaches(role, Role.OWNER):
        return True
    return reaches(role, Role.OPERATOR) and user.role == Role.NONE.value and not has_admin_key(user.username)
