"""Changing what is there: keys (fields, new secret, delete) and API users. Each change is in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from mongoengine.errors import NotUniqueError
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from apps.core import audit
from apps.core.conditional import CHANGED_MEANWHILE, still
from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.keys.authentication import forget_cached_keys, hash_secret
from apps.keys.documents import ApiKey, Role, User
from apps.keys.fields import check_key_fields, check_user_fields, check_username
from apps.keys.selectors import count_keys, find_key, find_user
from apps.keys.services import NewKey, ensure_user, new_secret, set_key_active

DEFAULT_GRACE_S = 86_400
MAX_GRACE_S = 30 * 86_400


def known_key(prefix: str) -> ApiKey:
    """Raises NotFound."""
    key = find_key(prefix)
    if key is None:
        raise NotFound(f"There is no key with the prefix {prefix}.")
    return key


def known_user(username: str) -> User:
    """Raises NotFound."""
    user = find_user(username)
    if user is None:
        raise NotFound(f"There is no user {username}.")
    return user


def update_key(
    prefix: str, fields: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None, actor: str, address: str = ""
) -> ApiKey:
    """Change some fields, in every process within a second. Raises NotFound, InvalidParameter.

    Fields that are not named stay as they are, also when somebody else changes them at the same time. ``seen``: raises
    Conflict, and changes nothing, where these fields are no longer what they were.
    """
    changes = check_key_fields(fields)
    if changes.get("owner"):
        ensure_user(changes["owner"])
    before = _still(ApiKey, seen, prefix=prefix).modify(**_setting(changes)) if changes else known_key(prefix)
    if before is None:
        known_key(prefix)
        raise Conflict(CHANGED_MEANWHILE)
    forget_cached_keys()
    _keep_words(ApiKey, {"prefix": prefix}, changes)
    _record("key.update", "key", prefix, before, changes, actor=actor, address=address)
    return known_key(prefix)


def switch_key(prefix: str, *, active: bool, actor: str, address: str = "") -> bool:
    """Switch a key off for now, or on again. Returns whether that changed anything. Raises as ``set_key_active``."""
    changed = set_key_active(prefix, active=active)
    if changed:
        audit.record(
            actor=actor,
            action="key.activate" if active else "key.deactivate",
            target_kind="key",
            target_id=prefix,
            before={"active": not active},
            after={"active": active},
            address=address,
        )
    return changed


def rotate_key(prefix: str, *, grace_s: int = DEFAULT_GRACE_S, actor: str, address: str = "") -> NewKey:
    """Give a key a new secret. The old one works for ``grace_s`` more; one that was in its grace time stops at once.

    One atomic update. Raises NotFound, InvalidParameter, and Conflict for a key that was revoked for good. A secret
    that could not be put on record is taken back: nobody has seen it.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        raise InvalidParameter(f"The grace time is 0 to {MAX_GRACE_S} seconds.", parameter="grace_s")
    secret, now = new_secret(), datetime.now(UTC)
    until = now + timedelta(seconds=grace_s)
    before = ApiKey._get_collection().find_one_and_update(
        {"prefix": prefix, "revoked_at": None},
        [
            {
                "$set": {
                    "old_secret_sha256": "$secret_sha256",
                    "old_secret_until": until,
                    "secret_sha256": hash_secret(secret),
                    "rotated_at": now,
                }
            }
        ],
        return_document=ReturnDocument.BEFORE,
    )
    forget_cached_keys()
    if before is None:
        known_key(prefix)
        raise Conflict("This key was revoked for good. Create a new one.")
    try:
        key = known_key(prefix)
        audit.record(
            actor=actor, action="key.rotate", target_kind="key", target_id=prefix, after={"old_works_until": until},
            address=address,
        )  # fmt: skip
    except BaseException:
        _take_back(before, unseen=secret)
        raise
    return NewKey(key=f"yt_{prefix}_{secret}", document=key)


def _take_back(before: Mapping[str, Any], *, unseen: str) -> None:
    """Undo a rotation, unless another one followed. Where MongoDB is away by now, it stays."""
    names = ("secret_sha256", "old_secret_sha256", "old_secret_until", "rotated_at")
    was = {"$set": {name: before[name] for name in names if name in before}}
    gone = {name: "" for name in names if name not in before}
    with suppress(PyMongoError):
        ours = {"_id": before["_id"], "secret_sha256": hash_secret(unseen)}
        ApiKey._get_collection().update_one(ours, was | ({"$unset": gone} if gone else {}))
    forget_cached_keys()


def delete_key(prefix: str, *, actor: str, address: str = "") -> None:
    """Delete a key, its links and running streams with it, within a second. What it used stays counted."""
    key: ApiKey | None = ApiKey.objects(prefix=prefix).modify(remove=True)
    forget_cached_keys()
    if key is None:
        raise NotFound(f"There is no key with the prefix {prefix}.")
    before = {"name": key.name, "owner": key.owner, "scopes": list(key.scopes)}
    audit.record(actor=actor, action="key.delete", target_kind="key", target_id=prefix, before=before, address=address)


def add_user(username: str, fields: Mapping[str, Any], *, actor: str, address: str = "") -> User:
    """Make a user who has keys and no entry to the admin. Raises InvalidParameter, or Conflict for a taken name."""
    checked = check_user_fields(fields)
    user = User(username=check_username(username), role=Role.NONE.value, **checked)
    try:
        user.save(force_insert=True)
    except NotUniqueError:
        raise Conflict(f"There is a user {username} already.") from None
    audit.record(
        actor=actor, action="user.create", target_kind="user", target_id=username, after=checked, address=address
    )
    return user


def update_user(
    username: str, fields: Mapping[str, Any], *, seen: Mapping[str, Any] | None = None, actor: str, address: str = ""
) -> User:
    """Change some fields of a user; their keys follow within a second. Raises NotFound, InvalidParameter. ``seen`` is
    as with ``update_key``.

    Raises Conflict for switching somebody off, or on, who may enter the admin: owners do that (``apps.keys.admins``).
    """
    changes = check_user_fields(fields)
    which = {"username": username} | ({"role": Role.NONE.value} if "active" in changes else {})
    before = _still(User, seen, **which).modify(**_setting(changes)) if changes else known_user(username)
    if before is None:
        known_user(username)
        if "active" not in changes:
            raise Conflict(CHANGED_MEANWHILE)
        raise Conflict(f"{username} may enter the admin. An owner switches admins off and on, on the page Admins.")
    forget_cached_keys()
    _keep_words(User, {"username": username}, changes)
    _record("user.update", "user", username, before, changes, actor=actor, address=address)
    return known_user(username)


def delete_user(username: str, *, actor: str, address: str = "") -> None:
    """Delete a user who has no keys and no role. Raises NotFound, Conflict."""
    user = known_user(username)
    if user.role != Role.NONE.value:
        raise Conflict(f"{username} may enter the admin. Take the role away first.")
    if count := count_keys(username):
        raise Conflict(f"{username} has {count} API keys. Delete them, or give them to somebody else, first.")
    if not User.objects(username=username, role=Role.NONE.value).delete():
        raise NotFound(f"There is no user {username}.")
    before = {"name": user.name, "contact": user.contact}
    audit.record(
        actor=actor, action="user.delete", target_kind="user", target_id=username, before=before, address=address
    )


def _still(document: type[ApiKey | User], seen: Mapping[str, Any] | None, **which: str) -> Any:
    """The document, where the fields in ``seen`` are those values."""
    return document.objects(__raw__={**which, **still(seen)})


def _setting(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"set__{name}": value for name, value in changes.items()}


def _keep_words(document: type[ApiKey | User], where: Mapping[str, str], changes: Mapping[str, Any]) -> None:
    """Lists find documents by words; an update that skips ``save`` has to set them."""
    if set(changes) & set(document.searched_fields):
        found = document.objects(**where).first()
        if found is not None:
            words = document.words_of({name: getattr(found, name) for name in document.searched_fields})
            document.objects(**where).update_one(set__words=words)


def _record(
    action: str, kind: str, target_id: str, before: ApiKey | User, changes: Mapping[str, Any], *, actor: str,
    address: str,
) -> None:  # fmt: skip
    was = {name: _plain(getattr(before, name)) for name in changes}
    touched = [name for name in changes if was[name] != changes[name]]
    if touched:
        audit.record(
            actor=actor,
            action=action,
            target_kind=kind,
            target_id=target_id,
            before={name: was[name] for name in touched},
            after={name: changes[name] for name in touched},
            address=address,
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value
