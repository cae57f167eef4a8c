"""Users and keys as JSON lines: hashes instead of secrets, so that keys go on working on another server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mongoengine.errors import NotUniqueError, ValidationError

from apps.core import audit
from apps.core.errors import InvalidParameter
from apps.keys.authentication import forget_cached_keys
from apps.keys.documents import LIMIT_NAMES, ApiKey, Role, User
from apps.keys.fields import check_key_fields, check_user_fields, check_username
from apps.keys.selectors import iterate_keys, iterate_users
from apps.keys.services import ensure_user

MAX_LINE_CHARACTERS = 64 * 1024
_USER_FIELDS = ("name", "contact", "notes", "active", *LIMIT_NAMES)
_KEY_FIELDS = ("name", "owner", "labels", "scopes", "allowed_cidrs", "allowed_origins", "bind_links", *LIMIT_NAMES)
_KEY_TIMES = ("expires_at", "created_at", "revoked_at", "rotated_at", "old_secret_until")
_PREFIX = re.compile(r"[A-Za-z0-9]{8}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(kw_only=True)
class Imported:
    """What an import did."""

    added: int = 0
    replaced: int = 0
    skipped: int = 0


def export_lines() -> Iterator[str]:
    """Every user, then every key, one JSON object a line."""
    yield from (json.dumps({"user": user.username, **_plain(user, _USER_FIELDS)}) for user in iterate_users())
    yield from (json.dumps(_key_line(key)) for key in iterate_keys())


def import_lines(lines: Iterable[str], *, replace: bool, actor: str) -> Imported:
    """Add what the lines of ``export_lines`` hold; what is there already stays, or is replaced.

    Can be repeated after a failure. Raises InvalidParameter, naming the line; the lines before it are in by then.
    Nobody gets a role or a password by it.
    """
    done = Imported()
    try:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                _import_line(line, number, replace=replace, done=done)
    finally:
        forget_cached_keys()
        after = {"added": done.added, "replaced": done.replaced, "skipped": done.skipped}
        audit.record(actor=actor, action="key.import", target_kind="key", target_id="many", after=after)
    return done


def _import_line(line: str, number: int, *, replace: bool, done: Imported) -> None:
    try:
        fields = json.loads(line) if len(line) <= MAX_LINE_CHARACTERS else None
        if not isinstance(fields, dict):
            raise ValueError("a JSON object is expected")
        if "user" in fields:
            document, where = _read_user(fields)
        else:
            document, where = _read_key(fields)
        document.validate()
    except InvalidParameter as error:
        raise InvalidParameter(f"line {number}: {error.message}") from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise InvalidParameter(f"line {number}: this is no line of `keys export`.") from None
    kind = type(document)
    if isinstance(document, ApiKey) and document.owner:
        ensure_user(document.owner)
    try:
        document.save(force_insert=True)
        done.added += 1
    except NotUniqueError:
        if replace:
            document.clean()
            taken = {name: getattr(document, name) for name in (*_taken(kind), "words")}
            kind.objects(**where).update_one(**{f"set__{name}": value for name, value in taken.items()})
            done.replaced += 1
        else:
            done.skipped += 1


def _taken(kind: type[ApiKey | User]) -> tuple[str, ...]:
    if kind is User:
        return _USER_FIELDS
    return (*_KEY_FIELDS, *_KEY_TIMES, "active", "secret_sha256", "old_secret_sha256")


def _key_line(key: ApiKey) -> dict[str, Any]:
    times = {name: getattr(key, name) and getattr(key, name).isoformat() for name in _KEY_TIMES}
    return {
        "prefix": key.prefix,
        "secret_sha256": key.secret_sha256,
        "old_secret_sha256": key.old_secret_sha256,
        "active": key.active,
        **_plain(key, _KEY_FIELDS),
        **times,
    }


def _plain(document: ApiKey | User, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(document, name) for name in names}
    return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


def _read_user(fields: dict[str, Any]) -> tuple[User, dict[str, str]]:
    username = check_username(str(fields["user"]))
    checked = check_user_fields({name: fields[name] for name in _USER_FIELDS if name in fields})
    return User(username=username, role=Role.NONE.value, **checked), {"username": username}


def _read_key(fields: dict[str, Any]) -> tuple[ApiKey, dict[str, str]]:
    prefix, secret = str(fields["prefix"]), str(fields["secret_sha256"])
    old_secret = str(fields.get("old_secret_sha256") or "")
    if not _PREFIX.fullmatch(prefix) or not _SHA256.fullmatch(secret):
        raise ValueError("no key")
    if old_secret and not _SHA256.fullmatch(old_secret):
        raise ValueError("no hash")
    checked = check_key_fields({name: fields[name] for name in _KEY_FIELDS if name in fields})
    times = {name: _moment(fields.get(name)) for name in _KEY_TIMES}
    times["created_at"] = times["created_at"] or datetime.now(UTC)
    key = ApiKey(
        prefix=prefix, secret_sha256=secret, old_secret_sha256=old_secret, active=fields["active"] is True,
        **checked, **times,
    )  # fmt: skip
    return key, {"prefix": prefix}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time has its zone")
    return moment
