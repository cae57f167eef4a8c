"""Links of people who are logged in to the admin: they have no API key, so their grant is made of who they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from apps.keys.documents import Role, User
from apps.keys.roles import may
from apps.keys.selectors import find_user_by_id, find_usernames

PERSON_PATTERN = re.compile(r"admin-(?P<user_id>[0-9a-f]{24})-(?P<version>[0-9]{1,12})", re.ASCII)

_NAMED = re.compile(r"admin-(?P<user_id>[0-9a-f]{24})(?:-[0-9]{1,9})?", re.ASCII)
PERSON_CHARACTERS = len("admin-") + 24  # what is left of such a prefix without its sessions


def person_prefix(user: User) -> str:
    """What stands in the place of a key's prefix for this person. No key has such a prefix; nobody is let in by it.

    It ends with the person's sessions (``session_version``), role or entry.
    """
    return f"admin-{user.id}-{user.session_version}"


def people_names(prefixes: Iterable[str]) -> dict[str, str]:
    """What such prefixes are called, also of earlier sessions or without one, and of people who are gone or may not
    enter any more.

    Other prefixes are left out.
    """
    ids = {prefix: match["user_id"] for prefix in prefixes if (match := _NAMED.fullmatch(prefix))}
    usernames = find_usernames(set(ids.values())) if ids else {}
    return {
        prefix: f"{usernames.get(user_id, 'somebody who is gone')} (in the admin)" for prefix, user_id in ids.items()
    }


def is_person(prefix: str) -> bool:
    """Whether it stands for somebody in the admin, with the session or without. It lets nobody in."""
    return _NAMED.fullmatch(prefix) is not None


def find_person(prefix: str) -> User | None:
    """The person whom such a prefix stands for, while they may enter the admin. None for anything else."""
    match = PERSON_PATTERN.fullmatch(prefix)
    if match is None:
        return None
    user = find_user_by_id(match["user_id"])
    if user is None or not user.active or not may(user, Role.VIEWER):
        return None
    return user if user.session_version == int(match["version"]) else None
