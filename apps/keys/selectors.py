"""Reads of users and API keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bson import ObjectId

from apps.keys.documents import LIMIT_NAMES, ApiKey, Role, Scope, User

PAGE_SIZE = 1000
MAX_KEYS_WITH_ORIGINS = 10_000
_USER_ROW = {"_id": 0, **dict.fromkeys(("username", "active", *LIMIT_NAMES), 1)}
_KEY_ROW = {
    "_id": 0,
    **dict.fromkeys(LIMIT_NAMES, 1),
    **dict.fromkeys(("prefix", "name", "owner", "scopes", "active", "expires_at", "allowed_cidrs", "bind_links"), 1),
    **dict.fromkeys(("secret_sha256", "old_secret_sha256", "old_secret_until"), 1),
}


def find_key(prefix: str) -> ApiKey | None:
    """The key with this prefix, active or not."""
    found: ApiKey | None = ApiKey.objects(prefix=prefix).first()
    return found


def key_rows(prefixes: Iterable[str]) -> list[Mapping[str, Any]]:
    """What decides about requests, of those of these keys that there are, as MongoDB has it: documents would cost
    several times as much to make. One query."""
    return list(ApiKey._get_collection().find({"prefix": {"$in": list(prefixes)}}, _KEY_ROW))


def user_rows(usernames: Iterable[str]) -> list[Mapping[str, Any]]:
    """The same of users."""
    return list(User._get_collection().find({"username": {"$in": list(usernames)}}, _USER_ROW))


def list_keys(*, owner: str | None = None, offset: int = 0, limit: int = PAGE_SIZE) -> list[ApiKey]:
    """Keys, newest first, ``limit`` (at most PAGE_SIZE) of them from ``offset`` on."""
    query = ApiKey.objects if owner is None else ApiKey.objects(owner=owner)
    return list(query.order_by("-created_at", "prefix").skip(offset).limit(min(limit, PAGE_SIZE)))


def iterate_keys() -> Iterator[ApiKey]:
    """Every key, newest first. Each page begins behind the last key of the one before, so that nothing is read twice
    and keys that go meanwhile leave none out."""
    where: dict[str, Any] = {}
    while page := list(ApiKey.objects(__raw__=where).order_by("-created_at", "prefix").limit(PAGE_SIZE)):
        yield from page
        at, prefix = page[-1].created_at, page[-1].prefix
        where = {"$or": [{"created_at": at, "prefix": {"$gt": prefix}}, {"created_at": {"$lt": at}}]}


def find_user(username: str) -> User | None:
    """The user with this exact name, active or not."""
    found: User | None = User.objects(username=username).first()
    return found


def find_user_by_id(user_id: str) -> User | None:
    """The user with this id, active or not. None as well for what is no id."""
    if not ObjectId.is_valid(user_id):
        return None
    found: User | None = User.objects(id=user_id).first()
    return found


def find_usernames(user_ids: Iterable[str]) -> dict[str, str]:
    """The usernames of those of these users that there are, by id. One query."""
    return {str(user.id): user.username for user in User.objects(id__in=list(user_ids)).only("id", "username")}


def list_users(*, offset: int = 0, limit: int = PAGE_SIZE) -> list[User]:
    """Users by name, ``limit`` (at most PAGE_SIZE) of them from ``offset`` on."""
    return list(User.objects.order_by("username").skip(offset).limit(min(limit, PAGE_SIZE)))


def iterate_users() -> Iterator[User]:
    """Every user, by name; read as ``iterate_keys`` reads."""
    after = ""
    while page := list(User.objects(username__gt=after).order_by("username").limit(PAGE_SIZE)):
        yield from page
        after = page[-1].username


def count_keys(owner: str | None = None) -> int:
    """How many keys there are, or belong to a user."""
    counted: int = (ApiKey.objects if owner is None else ApiKey.objects(owner=owner)).count()
    return counted


def count_keys_by_owner() -> dict[str, int]:
    """How many keys belong to each user who has some. One query, answered by an index."""
    of_some = [{"$match": {"owner": {"$gt": ""}}}, {"$group": {"_id": "$owner", "count": {"$sum": 1}}}]
    return {row["_id"]: row["count"] for row in ApiKey._get_collection().aggregate(of_some)}


def has_admin_key(username: str) -> bool:
    """Whether a key of this user, active or not, has the scope admin."""
    return ApiKey.objects(owner=username, scopes=Scope.ADMIN.value).only("id").first() is not None


def count_users() -> int:
    """How many users there are."""
    counted: int = User.objects.count()
    return counted


def has_admins() -> bool:
    """Whether anybody may enter the admin; ``up`` makes the first admin when nobody may."""
    return User.objects(role__ne=Role.NONE.value).first() is not None


def origins_by_key() -> dict[str, frozenset[str]]:
    """The web origins that each active key allows, by its prefix; keys that allow none are left out."""
    some = {"allowed_origins": {"$gt": ""}, "active": True}
    rows = ApiKey._get_collection().find(some, {"_id": 0, "prefix": 1, "allowed_origins": 1})
    return {row["prefix"]: frozenset(row["allowed_origins"]) for row in rows.limit(MAX_KEYS_WITH_ORIGINS)}
