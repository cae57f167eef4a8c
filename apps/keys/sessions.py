"""Signing people in to the admin and out again. A session holds a user's id, session version and two times.

It ends after SESSION_IDLE_S without a request by hand, and after SESSION_MAX_S whatever happens.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpRequest
from django.middleware.csrf import rotate_token
from redis.exceptions import RedisError

from apps.keys.documents import Role, User
from apps.keys.selectors import find_user_by_id
from apps.keys.services import mark_login

NOTE_USE_EVERY_S = 60
CONFIRMED_FOR_S = 600
"""So long somebody who gave the password (and code) again may do what asks for that."""
_USER_ID = "_user_id"
_SESSION_VERSION = "_session_version"
_STARTED_AT = "_started_at"
_USED_AT = "_used_at"
_CONFIRMED_AT = "_confirmed_at"
_WAITING_ID = "_waiting_id"
_WAITING_VERSION = "_waiting_version"
_WAITING_SINCE = "_waiting_since"
CODE_WITHIN_S = 300


def login(request: HttpRequest, user: User) -> None:
    """Sign ``user`` in on a new session key, so that a key somebody planted before is worth nothing."""
    _start(request, user)
    mark_login(user, at=datetime.now(UTC))


def wait_for_code(request: HttpRequest, user: User) -> None:
    """Remember, on a new session key, that ``user`` gave the right password and still owes a code. Nobody is in yet."""
    request.session.flush()
    request.session[_WAITING_ID] = str(user.id)
    request.session[_WAITING_VERSION] = user.session_version
    request.session[_WAITING_SINCE] = int(time.time())
    request.session.cycle_key()
    request.session.set_expiry(CODE_WITHIN_S)


def user_waiting_for_code(request: HttpRequest) -> User | None:
    """Who gave the right password less than CODE_WITHIN_S ago, unless sessions of that user were ended since."""
    user_id, since = request.session.get(_WAITING_ID), _number(request.session, _WAITING_SINCE)
    if not isinstance(user_id, str) or time.time() - since >= CODE_WITHIN_S:
        return None
    return _active_admin(user_id, request.session.get(_WAITING_VERSION))


def go_on_after_change(request: HttpRequest, user: User) -> None:
    """Keep this session, on a new key, after a change that ended every session of ``user`` (a new password)."""
    _start(request, user)


def mark_confirmed(request: HttpRequest) -> None:
    """Remember, on a new session key, that it was the person themselves just now. Ends with the session."""
    request.session[_CONFIRMED_AT] = int(time.time())
    request.session.cycle_key()


def is_confirmed(request: HttpRequest) -> bool:
    """Whether whoever is signed in gave the password (and code) again less than CONFIRMED_FOR_S ago."""
    return time.time() - _number(request.session, _CONFIRMED_AT) < CONFIRMED_FOR_S


def _start(request: HttpRequest, user: User) -> None:
    request.session.flush()
    request.session[_USER_ID] = str(user.id)
    request.session[_SESSION_VERSION] = user.session_version
    start_times(request.session)
    request.session.cycle_key()
    rotate_token(request)
    request.admin_user = user  # type: ignore[attr-defined]


def logout(request: HttpRequest) -> None:
    """Sign out: the session is deleted on the server as well."""
    request.session.flush()
    rotate_token(request)
    request.admin_user = None  # type: ignore[attr-defined]


def note_use(request: HttpRequest) -> None:
    """Somebody did something by hand: the idle time starts anew. Written at most every NOTE_USE_EVERY_S.

    Where Redis takes no changes, the page is shown all the same, and the next one tries again.
    """
    session = request.session
    was_modified, before = session.modified, session.get(_USED_AT)
    if note_use_in(session):
        try:
            with suppress(UpdateError):  # it was ended meanwhile: who saves it after the answer says so
                session.save()
        except RedisError:
            session[_USED_AT] = before
            session.modified = was_modified


def start_times(times: MutableMapping[str, Any]) -> None:
    """Begin both times of a session, or of something that is kept in one."""
    times[_STARTED_AT] = times[_USED_AT] = int(time.time())


def note_use_in(times: MutableMapping[str, Any]) -> bool:
    """``note_use`` for what ``start_times`` began. Returns whether anything was written."""
    now = int(time.time())
    if now - _number(times, _USED_AT) < NOTE_USE_EVERY_S:
        return False
    times[_USED_AT] = now
    return True


def user_of_session(request: HttpRequest) -> User | None:
    """Who is signed in: an active user with a role, whose sessions have not been ended since, within both times."""
    return _user_of(request.session)


def user_of_session_key(session_key: str) -> User | None:
    """The same for a session key, where there is no request (websockets). Reads Redis and MongoDB."""
    if not session_key:
        return None
    return _user_of(import_module(settings.SESSION_ENGINE).SessionStore(session_key))


def _user_of(session: Any) -> User | None:
    user_id = session.get(_USER_ID)
    if not isinstance(user_id, str) or not is_in_time(session):
        return None
    return _active_admin(user_id, session.get(_SESSION_VERSION))


def _active_admin(user_id: str, version: Any) -> User | None:
    user = find_user_by_id(user_id)
    if user is None or not user.active or user.role == Role.NONE.value:
        return None
    return user if hmac.compare_digest(str(version), str(user.session_version)) else None


def is_in_time(times: Mapping[str, Any]) -> bool:
    """Whether neither the idle nor the longest time of what ``start_times`` began is over."""
    now, env = time.time(), settings.ENV
    is_used: bool = now - _number(times, _USED_AT) < env.session_idle_s
    is_young: bool = now - _number(times, _STARTED_AT) < env.session_max_s
    return is_used and is_young


def _number(session: Mapping[str, Any], name: str) -> float:
    value = session.get(name)
    return value if isinstance(value, int | float) else 0.0
