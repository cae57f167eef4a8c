"""Making, revoking and using API keys; making users and checking their passwords."""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.hashers import check_password as check_hash
from django.contrib.auth.hashers import make_password
from mongoengine.errors import NotUniqueError
from pymongo.errors import PyMongoError

from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.keys.authentication import forget_cached_keys, hash_secret
from apps.keys.documents import ApiKey, Role, Scope, User
from apps.keys.fields import check_key_fields, check_username
from apps.keys.selectors import find_key, find_user

DEFAULT_SCOPES = (Scope.INFO, Scope.MEDIA, Scope.SEARCH)
MIN_PASSWORD_LENGTH = 12
PREFIX_ATTEMPTS = 10
_hashing = threading.BoundedSemaphore(2)
_PREFIX_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made. ``key`` is the whole secret text and is not stored anywhere."""

    key: str
    document: ApiKey


def create_key(
    *,
    name: str,
    owner: str = "",
    scopes: tuple[str, ...] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
    **more: Any,
) -> NewKey:
    """Make a key: ``yt_<8 characters prefix>_<43 characters secret>``. Raises InvalidParameter.

    ``more``: limits, labels, ``allowed_cidrs``, ``bind_links``. An owner whom nobody has heard of becomes a user.
    """
    given = {"name": name, "owner": owner, "scopes": [str(scope) for scope in scopes], "expires_at": expires_at}
    fields = check_key_fields({**given, **more})
    if fields["owner"]:
        ensure_user(fields["owner"])
    secret = new_secret()
    for _ in range(PREFIX_ATTEMPTS):
        document = ApiKey(prefix=_new_prefix(), secret_sha256=hash_secret(secret), **fields)
        try:
            document.save(force_insert=True)
        except NotUniqueError:
            continue  # somebody has this prefix already
        return NewKey(key=f"yt_{document.prefix}_{secret}", document=document)
    raise Conflict("No free key prefix was found. Try again.")


def create_recorded_key(record: Callable[[ApiKey], object], **fields: Any) -> NewKey:
    """``create_key``, and put it on record. A key that ``record`` fails for is taken away: nobody has seen it. Where
    MongoDB is away by then, it stays."""
    new = create_key(**fields)
    try:
        record(new.document)
    except BaseException:
        with suppress(PyMongoError):
            ApiKey.objects(prefix=new.document.prefix, secret_sha256=new.document.secret_sha256).delete()
        raise
    return new


def new_secret() -> str:
    """43 characters, 256 random bits."""
    return secrets.token_urlsafe(32)


def ensure_user(username: str) -> None:
    """Make the API user ``username`` unless there is one. Idempotent, also when many do it at once."""
    if find_user(check_username(username)) is None:
        with suppress(NotUniqueError):
            User(username=username, role=Role.NONE.value).save(force_insert=True)


def _new_prefix() -> str:
    return "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(8))


def revoke_key(prefix: str) -> ApiKey:
    """Switch a key off for good, in every process within a second. Idempotent. Raises NotFound."""
    ApiKey.objects(prefix=prefix, revoked_at=None).update_one(active=False, revoked_at=datetime.now(UTC))
    forget_cached_keys()
    document = find_key(prefix)
    if document is None:
        raise NotFound(f"There is no key with the prefix {prefix}.")
    return document


def set_key_active(prefix: str, *, active: bool) -> bool:
    """Switch a key off, or on again, in every process within a second. Returns whether that changed anything.

    Raises NotFound, and Conflict for a key that was revoked for good.
    """
    changed = ApiKey.objects(prefix=prefix, revoked_at=None, active=not active).update_one(active=active)
    forget_cached_keys()
    document = find_key(prefix)
    if document is None:
        raise NotFound(f"There is no key with the prefix {prefix}.")
    if document.revoked_at is not None:
        raise Conflict("This key was revoked for good. Create a new one.")
    return bool(changed)


def create_user(*, username: str, password: str, role: Role = Role.NONE, contact: str = "") -> User:
    """Make a user; the password is stored as an Argon2 hash. Raises InvalidParameter, or Conflict for a taken name."""
    check_username(username)
    if not MIN_PASSWORD_LENGTH <= len(password) <= 1000:
        raise InvalidParameter(f"A password has at least {MIN_PASSWORD_LENGTH} characters.")
    user = User(username=username, password_hash=make_password(password), role=role.value, contact=contact)
    try:
        user.save(force_insert=True)
    except NotUniqueError:
        raise Conflict(f"There is a user {username} already.") from None
    return user


def check_password(username: str, password: str) -> User | None:
    """The active user with this name and password, else None. An unknown name takes as long as a wrong password."""
    user = find_user(username)
    with limit_hashing():
        if user is None or not user.password_hash:
            make_password(password)
            return None
        return user if check_hash(password, user.password_hash) and user.active else None


def limit_hashing() -> AbstractContextManager[Any]:
    """At most two passwords are hashed at once in this process: each takes 100 MiB, and anybody may send a form."""
    return _hashing


def set_password(user: User, password: str) -> None:
    """Give a user a new password, and end every session of theirs. Raises InvalidParameter."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= 1000:
        raise InvalidParameter(f"A password has at least {MIN_PASSWORD_LENGTH} characters.")
    with limit_hashing():
        hashed = make_password(password)
    User.objects(id=user.id).update_one(password_hash=hashed, inc__session_version=1)
    user.reload()


def mark_keys_used(prefixes: Sequence[str], *, if_older_than_s: float) -> None:
    """Set the last use of these keys to now, but for those where it was set less than ``if_older_than_s`` ago. One
    update."""
    now = datetime.now(UTC)
    older = [{"last_used_at": None}, {"last_used_at": {"$lt": now - timedelta(seconds=if_older_than_s)}}]
    ApiKey._get_collection().update_many(
        {"prefix": {"$in": list(prefixes)}, "$or": older}, {"$set": {"last_used_at": now}}
    )


def mark_login(user: User, *, at: datetime) -> None:
    """Note that a user signed in."""
    User.objects(id=user.id).update_one(last_login_at=at)
