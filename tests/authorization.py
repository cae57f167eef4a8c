"""What the rows of ``tests/authorization_table.py`` mean, and every address there is, from the URL configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.apps import apps as django_apps
from django.urls import get_resolver
from django.urls.resolvers import RegexPattern, URLResolver
from django.utils.module_loading import module_has_submodule

from apps.keys.documents import Role, Scope
from apps.keys.roles import reaches

NOBODY, UNSCOPED, DISABLED, GOOD, ADMIN_KEY = "nobody", "key without scope", "disabled key", "good key", "admin key"
PEOPLE = {role.value: role for role in (Role.VIEWER, Role.OPERATOR, Role.OWNER)}
KEPT_KEY = "admin key kept in the browser"  # of /api/login; asked of the API's admin routes
KEYS = (UNSCOPED, DISABLED, GOOD, ADMIN_KEY)
CALLERS = (NOBODY, *KEYS, *PEOPLE)
WITHOUT_GOOD_KEYS = (NOBODY, UNSCOPED, DISABLED, *PEOPLE)  # where keys are worth nothing
IN, LOGIN, AGAIN, WHO, MAY_NOT, METHOD = "is in", "is sent to the login", "is asked again", "401", "403", "405"
SAMPLES = ("on", "proxies", "proxy", "cookies", "ytdlp", "11", "abcdefgh", "abcdefghijk", "verify", "a" * 24, "text")


@dataclass(frozen=True)
class Open:
    """Anybody, whoever they say they are."""

    def expected(self, caller: str, method: str) -> set[str]:
        return {IN, LOGIN, METHOD, WHO} if method == "POST" else {IN, LOGIN, METHOD}  # 401: an empty login form


@dataclass(frozen=True)
class ThisMachine:
    """Decided by address and token alone (METRICS_ADDRESSES, METRICS_TOKEN): no caller gets in from elsewhere."""

    def expected(self, caller: str, method: str) -> set[str]:
        return {MAY_NOT, METHOD}


@dataclass(frozen=True)
class Page:
    """A page of the admin: people with this role or a higher one, and another one to send its form, where it has one.

    Keys are worth nothing. ``again``: an open browser is not enough, the password is asked for again.
    """

    role: Role
    to_change: Role | None = None
    again: bool = False

    def expected(self, caller: str, method: str) -> set[str]:
        if caller not in PEOPLE:
            return {LOGIN}
        needed = self.to_change or self.role if method == "POST" else self.role
        reached = AGAIN if self.again else IN
        return {reached, METHOD} if reaches(caller, needed) else {MAY_NOT, METHOD}


@dataclass(frozen=True)
class Key:
    """Keys with this scope (None: any key). Being logged in to the admin is worth nothing."""

    scope: Scope | None
    is_needed: bool = True

    def expected(self, caller: str, method: str) -> set[str]:
        if caller == DISABLED:
            return {MAY_NOT}
        if caller == UNSCOPED and self.scope is not None:
            return {MAY_NOT}
        if caller in KEYS or not self.is_needed:
            return {IN}
        return {WHO}


@dataclass(frozen=True)
class Admins:
    """The API's admin routes: keys with the scope admin, and people by their role: to look, and to change."""

    to_read: Role = Role.VIEWER
    to_change: Role = Role.OPERATOR

    def expected(self, caller: str, method: str) -> set[str]:
        if caller in PEOPLE:
            needed = self.to_read if method == "GET" else self.to_change
            return {IN} if reaches(caller, needed) else {MAY_NOT}
        return {IN} if caller == ADMIN_KEY else {WHO} if caller == NOBODY else {MAY_NOT}


@dataclass(frozen=True)
class Socket:
    """A websocket: for people with the role; None: for whoever knows the unguessable id, and no wrong key."""

    role: Role | None


Policy = Open | ThisMachine | Page | Key | Admins | Socket


@dataclass(frozen=True)
class Route:
    """An address, filled with samples, and its methods."""

    name: str
    path: str
    methods: tuple[str, ...]


def http_routes() -> Iterator[Route]:
    """Every address of the URL configuration and of all dialects."""
    found: dict[str, Route] = {}
    for route in _walk(get_resolver().url_patterns, ""):
        found[route.name] = route
    yield from found.values()


def socket_routes() -> dict[str, bool]:
    """Every websocket's address, and whether it is one that goes by cookies."""
    found = {}
    for config in django_apps.get_app_configs():
        if config.name.startswith("apps.") and module_has_submodule(config.module, "routing"):
            routing = import_module(f"{config.name}.routing")
            for name, by_cookie in (("websocket_urlpatterns", True), ("keyed_websocket_urlpatterns", False)):
                for pattern in getattr(routing, name, []):
                    found[_name(pattern)] = by_cookie
    return found


def _walk(patterns: list[Any], prefix: str) -> Iterator[Route]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            name = prefix + _name(pattern)
            yield Route(name, _filled(prefix, pattern), _methods(pattern))


def _name(pattern: Any) -> str:
    return re.sub(r"^\^|\\Z$|\$$", "", str(pattern.pattern))


def _methods(pattern: Any) -> tuple[str, ...]:
    actions: Mapping[str, str] | None = getattr(pattern.callback, "actions", None)
    if actions:
        return tuple(method.upper() for method in actions)
    view = getattr(pattern.callback, "cls", None)
    if view is not None:
        return tuple(
            method.upper() for method in view.http_method_names if hasattr(view, method) and method != "options"
        )
    return ("GET", "POST")


def _filled(prefix: str, pattern: Any) -> str:
    if isinstance(pattern.pattern, RegexPattern):
        return f"/{prefix}" + re.sub(r"\(\?P<\w+>([^()]*)\)", lambda found: _sample(found[1]), _name(pattern))
    path = str(pattern.pattern)
    for name, converter in pattern.pattern.converters.items():
        path = re.sub(rf"<(\w+:)?{name}>", _sample(converter.regex), path)
    return f"/{prefix}{path}"


def _sample(regex: str) -> str:
    return next(sample for sample in SAMPLES if re.fullmatch(regex, sample))
