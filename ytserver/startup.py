"""What the database needs before the first request: indexes, seeds, and at the very first start an admin and a key."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from apps.core.errors import Conflict
from apps.core.indexes import ensure_indexes, fill_search_words
from apps.keys.documents import Role, Scope
from apps.keys.selectors import has_admins
from apps.keys.services import create_key, create_user
from apps.telegram_cache.services import seed_from_settings

FIRST_ADMIN = "admin"
FIRST_KEY_NAME = "first key"


@dataclass(frozen=True, kw_only=True)
class FirstStart:
    """What the operator must write down; none of it is stored in a readable form."""

    username: str
    password: str
    api_key: str


def prepare_database(report: Callable[[str], None] = lambda _line: None) -> FirstStart | None:
    """Make indexes and seeds. Idempotent, and safe on many nodes at once. ``report`` gets a line before what takes
    long.

    Returns the first admin and key when there was nobody yet: of any number of starters exactly one makes them,
    which the unique index on the username decides.
    """
    ensure_indexes(report)
    fill_search_words()
    seed_from_settings()
    if has_admins():
        return None
    password = secrets.token_urlsafe(18)
    try:
        create_user(username=FIRST_ADMIN, password=password, role=Role.OWNER)
    except Conflict:
        return None
    key = create_key(name=FIRST_KEY_NAME, owner=FIRST_ADMIN, scopes=tuple(Scope))
    return FirstStart(username=FIRST_ADMIN, password=password, api_key=key.key)
