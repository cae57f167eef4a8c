"""What this installation is made of: versions, and its settings without their secrets."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import mongoengine
import redis
from django.conf import settings
from pydantic import SecretStr
from pymongo.errors import PyMongoError

from apps.core.redis import redis_client
from apps.dashboard.amounts import amount_words, unit_of

PACKAGES = ("Django", "djangorestframework", "channels", "uvicorn", "celery", "mongoengine", "redis", "yt-dlp")
PING_TIMEOUT_MS = 2000


@dataclass(frozen=True, kw_only=True)
class ShownSetting:
    """``value`` is fit to be shown: of a secret only whether it is set. ``words``: a number with a unit, for people."""

    name: str
    value: str
    words: str
    description: str
    is_default: bool


def versions() -> list[tuple[str, str]]:
    """Each part's name and version; "does not answer" for a server that is away."""
    return [("ytserver", str(settings.SPECTACULAR_SETTINGS["VERSION"])), *_of_packages(), *_of_servers()]


@cache
def _of_packages() -> tuple[tuple[str, str], ...]:
    return ("Python", platform.python_version()), *((name, metadata.version(name)) for name in PACKAGES)


def _of_servers() -> list[tuple[str, str]]:
    away = "does not answer"
    try:
        mongo = str(mongoengine.get_db().command("buildInfo", maxTimeMS=PING_TIMEOUT_MS)["version"])
    except PyMongoError:
        mongo = away
    try:
        cache_server = str(redis_client().info("server")["redis_version"])
    except redis.RedisError:
        cache_server = away
    return [("MongoDB", mongo), ("Redis", cache_server), ("System", f"{platform.system()} {platform.release()}")]


def shown_settings() -> list[ShownSetting]:
    """Every setting of the environment, by name."""
    env = settings.ENV
    found = []
    for name, field in sorted(type(env).model_fields.items()):
        value = getattr(env, name)
        found.append(
            ShownSetting(
                name=name.upper(),
                value=_shown(value, is_secret=not field.repr),
                words=_words(name, value),
                description=field.description or "",
                is_default=value == field.get_default(),
            )
        )
    return found


def _words(name: str, value: Any) -> str:
    unit = unit_of(name)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    words = amount_words(int(value), unit) if unit and whole else ""
    return "" if words == str(value) else words


def _shown(value: Any, *, is_secret: bool) -> str:
    """``is_secret``: the field says ``repr=False``, as those do that hold secrets without being of the secret type."""
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else "not set"
    if is_secret:
        return "set" if value else "not set"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "–"  # noqa: RUF001 - a dash, as everywhere in the admin
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value not in (None, "") else "–"  # noqa: RUF001
