"""What the fields of keys and users may be. Every way to change them (commands, API, admin) checks here."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from apps.core.addresses import is_odd_number
from apps.core.errors import InvalidParameter
from apps.keys.documents import LIMIT_NAMES, MAX_BYTES, MAX_CONCURRENT, MAX_LIMIT, MAX_NOTES, Scope

MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 50
MAX_CIDRS = 50
MAX_ORIGINS = 50
LIMIT_RANGES = {
    "limit_per_hour": (1, MAX_LIMIT),
    "limit_per_day": (0, MAX_LIMIT),
    "bytes_per_day": (0, MAX_BYTES),
    "concurrent_streams": (0, MAX_CONCURRENT),
    "concurrent_jobs": (0, MAX_CONCURRENT),
    "longest_video_s": (0, MAX_LIMIT),
    "largest_file_bytes": (0, MAX_BYTES),
}
_ORIGIN = re.compile(
    r"https?://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:(?P<port>\d{1,5}))?", re.ASCII
)
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they turn what follows them around
_USERNAME = re.compile(r"[A-Za-z0-9._@+-]{1,64}", re.ASCII)


def check_key_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a key as they are stored. Raises InvalidParameter, naming the first that is wrong or unknown."""
    return _check(fields, _KEY_CHECKS)


def check_user_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the fields of a user."""
    return _check(fields, _USER_CHECKS)


def check_username(username: str) -> str:
    """Raises InvalidParameter."""
    if not _USERNAME.fullmatch(username):
        raise InvalidParameter("A username has 1 to 64 letters, digits or any of . _ @ + -", parameter="username")
    return username


def _check(fields: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in checks:
            raise InvalidParameter(f"{name}: there is no such field that can be changed.", parameter=name)
        try:
            checked[name] = checks[name](value)
        except ValueError as error:
            raise InvalidParameter(f"{name}: {error}", parameter=name) from None
    return checked


def _text(least: int, most: int, *, lines: bool = False) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise ValueError(f"a text of {least} to {most} characters.")
        _check_readable(value, lines=lines)
        return value

    return check


def _check_readable(text: str, *, lines: bool = False) -> None:
    """Raises ValueError for what makes a text look like another one, or like nothing. ``lines``: it may have some."""
    kinds = [unicodedata.category(character) for character in text if not (lines and character in "\r\n\t")]
    if _TURNING & set(text) or {"Cc", "Cs", "Zl", "Zp"} & set(kinds):
        raise ValueError("no control characters, and none that turn the direction of what follows.")
    if kinds and all(kind[0] in "CZ" for kind in kinds):
        raise ValueError("something to read: these characters cannot be seen.")


def _shown(text: str) -> str:
    """What somebody wrote, as a message repeats it."""
    return "“" + "".join(character if character.isprintable() else "\ufffd" for character in text[:60]) + "”"


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false.")
    return value


def _limit(name: str) -> Callable[[Any], int | None]:
    least, most = LIMIT_RANGES[name]

    def check(value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            no_limit = "" if least else " (0: no limit)"
            raise ValueError(f"a number from {least} to {most}{no_limit}, or nothing for the default.")
        return value

    return check


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("a list of texts.")
    return list(dict.fromkeys(str(item).strip() for item in value))


def _scopes(value: Any) -> list[str]:
    scopes = _texts(value)
    if not scopes or set(scopes) - {scope.value for scope in Scope}:
        raise ValueError(f"some of {', '.join(Scope)}.")
    return scopes


def _labels(value: Any) -> list[str]:
    labels = _texts(value)
    if len(labels) > MAX_LABELS or any(not 1 <= len(label) <= MAX_LABEL_CHARACTERS for label in labels):
        raise ValueError(f"write at most {MAX_LABELS} labels of 1 to {MAX_LABEL_CHARACTERS} characters.")
    for label in labels:
        _check_readable(label)
    return labels


def _cidrs(value: Any) -> list[str]:
    texts = _texts(value)
    if len(texts) > MAX_CIDRS:
        raise ValueError(f"at most {MAX_CIDRS} networks.")
    return list(dict.fromkeys(map(_cidr, texts)))


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        such_as = "write networks such as 203.0.113.0/24 or 2001:db8::/32"
        raise ValueError(f"{such_as}, not {_shown(text)}.") from None


def _origins(value: Any) -> list[str]:
    origins = [text.rstrip("/").lower() for text in _texts(value)]
    if len(origins) > MAX_ORIGINS:
        raise ValueError(f"at most {MAX_ORIGINS} origins.")
    for origin in origins:
        if origin != "*" and not _is_origin(origin):
            raise ValueError(f"write origins such as https://app.example.com, or * for all, not {_shown(origin)}.")
    return list(dict.fromkeys(origins))


def _is_origin(text: str) -> bool:
    match = _ORIGIN.fullmatch(text)
    if match is None or len(text) > 200 or is_odd_number(match["host"]):
        return False
    return match["port"] is None or 1 <= int(match["port"]) <= 65_535


def _owner(value: Any) -> str:
    if not isinstance(value, str) or (value and not _USERNAME.fullmatch(value)):
        raise ValueError("write a username: 1 to 64 letters from a to z, digits or any of . _ @ + -")
    return value


def _expiry(value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a time with its zone.")
    if value <= datetime.now(UTC):
        raise ValueError("the expiry lies in the past.")
    return value


_LIMIT_CHECKS: dict[str, Callable[[Any], Any]] = {name: _limit(name) for name in LIMIT_NAMES}
_KEY_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _text(1, 100),
    "owner": _owner,
    "labels": _labels,
    "scopes": _scopes,
    "expires_at": _expiry,
    "allowed_cidrs": _cidrs,
    "allowed_origins": _origins,
    "bind_links": _flag,
    **_LIMIT_CHECKS,
}
_USER_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _text(0, 100),
    "contact": _text(0, 254),
    "notes": _text(0, MAX_NOTES, lines=True),
    "active": _flag,
    **_LIMIT_CHECKS,
}
