"""Signing people in to the admin and out again. A session holds a user's id and session version, nothing more."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from django.http import HttpRequest
from django.middleware.csrf import rotate_token

from apps.keys.documents import Role, User
from apps.keys.selectors import find_user_by_id
from apps.keys.services import mark_login

_USER_ID = "_user_id"
_SESSION_VERSION = "_session_version"


def login(request: HttpRequest, user: User) -> None:
    """Sign ``user`` in on a new session key, so that a key somebody planted before is worth nothing."""
    request.session.flush()
    request.session[_USER_ID] = str(user.id)
    request.session[_SESSION_VERSION] = user.session_version
    request.session.cycle_key()
    rotate_token(request)
    mark_login(user, at=datetime.now(UTC))
    request.admin_user = user  # type: ignore[attr-defined]


def logout(request: HttpRequest) -> None:
    """Sign out: the session is deleted on the server as well."""
    request.session.flush()
    rotate_token(request)
    request.admin_user = None  # type: ignore[attr-defined]


def user_of_session(request: HttpRequest) -> User | None:
    """Who is signed in: an active user with a role, whose sessions have not been ended since."""
    user_id = request.session.get(_USER_ID)
    if not isinstance(user_id, str):
        return None
    user = find_user_by_id(user_id)
    if user is None or not user.active or user.role == Role.NONE.value:
        return None
    version = str(request.session.get(_SESSION_VERSION))
    return user if hmac.compare_digest(version, str(user.session_version)) else None
