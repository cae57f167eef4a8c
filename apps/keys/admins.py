"""People who may enter the admin: making them, their roles, switching them off, helping them back in.

There is always an active owner: a change that would leave none is undone and refused with Conflict.
"""

from __future__ import annotations

import secrets

from bson import ObjectId
from django.contrib.auth.hashers import check_password as check_hash

from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.keys.authentication import forget_cached_keys
from apps.keys.documents import Role, User
from apps.keys.selectors import find_user, find_user_by_id
from apps.keys.services import create_user, limit_hashing, set_password

ADMIN_ROLES = (Role.OWNER, Role.OPERATOR, Role.VIEWER)
NO_OWNER_LEFT = "This is the only owner who can log in. Make somebody else an owner first."


def find_admin(user_id: str) -> User:
    """Somebody with a role. Raises NotFound."""
    user = find_user_by_id(user_id) if ObjectId.is_valid(user_id) else None
    if user is None or user.role == Role.NONE.value:
        raise NotFound("There is no such admin.")
    return user


def find_admin_by_name(username: str) -> User:
    """Somebody with a role. Raises NotFound."""
    user = find_user(username)
    if user is None or user.role == Role.NONE.value:
        raise NotFound(f"There is no admin {username}.")
    return user


def new_password() -> str:
    """A password that nobody can guess."""
    return secrets.token_urlsafe(18)


def create_admin(*, username: str, role: Role, contact: str = "") -> tuple[User, str]:
    """Make somebody who may enter the admin. Returns the user and a password, shown once.

    A user without a role who has that name already becomes the admin. Raises InvalidParameter and Conflict.
    """
    if role not in ADMIN_ROLES:
        raise InvalidParameter(f"A role is one of: {', '.join(ADMIN_ROLES)}.", parameter="role")
    password = new_password()
    promoted: User | None = User.objects(username=username, role=Role.NONE.value).modify(set__role=role.value, new=True)
    if promoted is None:
        return create_user(username=username, password=password, role=role, contact=contact), password
    set_password(promoted, password)
    return promoted, password


def set_role(user: User, role: Role) -> bool:
    """Give a user another role; Role.NONE takes the entry to the admin away. Returns whether that changed anything.

    The user's sessions end. Raises Conflict when no owner would be left.
    """
    before = user.role
    done = User.objects(id=user.id, role=before, role__ne=role.value).update_one(
        role=role.value, inc__session_version=1
    )
    if done and before == Role.OWNER.value:
        _keep_an_owner(user, role=before)
    user.reload()
    return bool(done)


def set_admin_active(user: User, *, active: bool) -> bool:
    """Switch a user off (sessions end, keys of theirs stop) or on. Returns whether that changed anything.

    Raises Conflict when no owner would be left.
    """
    done = User.objects(id=user.id, active=not active).update_one(active=active, inc__session_version=1)
    forget_cached_keys()
    if done and not active:
        _keep_an_owner(user, active=True)
    user.reload()
    return bool(done)


def _keep_an_owner(user: User, **undo: object) -> None:
    """Look after the change, so that two owners who demote each other at once are both refused."""
    if not User.objects(role=Role.OWNER.value, active=True).first():
        User.objects(id=user.id).update_one(**undo)
        forget_cached_keys()
        raise Conflict(NO_OWNER_LEFT)


def reset_password(user: User) -> str:
    """Give a user a new password, which is returned and stored nowhere readable; their sessions end."""
    password = new_password()
    set_password(user, password)
    return password


def end_sessions(user: User) -> None:
    """Log the user out everywhere."""
    User.objects(id=user.id).update_one(inc__session_version=1)
    user.reload()


def is_password_of(user: User, password: str) -> bool:
    """Whether this is the user's password, for asking again before something that matters."""
    with limit_hashing():
        return bool(user.password_hash) and check_hash(password, user.password_hash)
