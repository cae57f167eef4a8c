"""Keys and users for programs: the same as the commands and the admin pages do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import audit
from apps.core.errors import RoleMissing
from apps.downloads import key_serializers as shapes
from apps.downloads.openapi import KEY_ERRORS, error_responses
from apps.downloads.request_serializers import NoFieldsSerializer, PageRequestSerializer
from apps.downloads.services.answers import iso_utc
from apps.downloads.views.base import ApiViewSet
from apps.keys.changes import (
    add_user,
    delete_key,
    delete_user,
    known_key,
    known_user,
    rotate_key,
    switch_key,
    update_key,
    update_user,
)
from apps.keys.documents import LIMIT_NAMES, ApiKey, Role, Scope, User
from apps.keys.drf import client_address
from apps.keys.roles import AdminGrant, may_change_key, may_change_user
from apps.keys.selectors import count_keys, count_users, has_admin_key, list_keys, list_users
from apps.keys.services import NewKey, create_recorded_key, revoke_key
from apps.keys.sessions import is_confirmed

PREFIX = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The key's prefix, 8 characters.")
USERNAME = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The username.")
_ERRORS = error_responses("invalid_parameter", "role_missing", "not_found", "conflict", *KEY_ERRORS)
GIVES_POWER = frozenset({"create", "partial_update", "rotate", "activate"})
"""Actions after which somebody may have a key with the scope admin. An open browser is not enough for those."""
_KEY_TEXTS = ("prefix", "name", "owner", "active", "bind_links", *LIMIT_NAMES)
_KEY_TIMES = ("expires_at", "created_at", "last_used_at", "rotated_at", "old_secret_until", "revoked_at")
_USER_TEXTS = ("username", "name", "contact", "notes", "active", "role", *LIMIT_NAMES)


def _on_key(name: str, summary: str, answer: type = shapes.KeyAnswerSerializer, request: Any = None) -> Any:
    return extend_schema(
        operation_id=f"admin_key_{name}", summary=summary, parameters=[PREFIX], request=request,
        responses={200: answer, **_ERRORS},
    )  # fmt: skip


def _on_user(name: str, summary: str, answer: type = shapes.UserAnswerSerializer, request: Any = None) -> Any:
    return extend_schema(
        operation_id=f"admin_user_{name}", summary=summary, parameters=[USERNAME], request=request,
        responses={200: answer, **_ERRORS},
    )  # fmt: skip


class _PeopleViewSet(ApiViewSet):
    required_scope = Scope.ADMIN
    serializers: Mapping[str, type] = {}

    def get_serializer_class(self) -> type:
        return self.serializers.get(self.action or "", NoFieldsSerializer)

    def changes(self) -> dict[str, Any]:
        """The fields that were sent. Flags that were not sent read as None."""
        flags = ("bind_links", "active")
        return {name: value for name, value in self.fields().items() if value is not None or name not in flags}

    @property
    def who(self) -> audit.Who:
        return {"actor": self.request.user.actor, "address": client_address(self.request._request)}

    @property
    def role(self) -> Role:
        """A key with the scope admin may do what an owner may."""
        user = self.request.user
        return user.role if isinstance(user, AdminGrant) else Role.OWNER

    def ask_again(self) -> None:
        """An open browser is not enough for this. Raises RoleMissing unless the password was given again lately."""
        if isinstance(self.request.user, AdminGrant) and not is_confirmed(self.request._request):
            raise RoleMissing("Give your password again first: /admin/account/confirm.")


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_keys", summary="The API keys",
        responses={200: shapes.KeyListAnswerSerializer, **_ERRORS},
    ),
    create=extend_schema(
        operation_id="admin_key_create", summary="Make a key; it is shown only in this answer",
        request=shapes.KeyCreateRequestSerializer, responses={201: shapes.NewKeyAnswerSerializer, **_ERRORS},
    ),
    retrieve=_on_key("get", "One key"),
    partial_update=_on_key("update", "Change a key", request=shapes.KeyChangeRequestSerializer),
    destroy=_on_key("delete", "Delete a key", shapes.DoneAnswerSerializer),
    rotate=_on_key(
        "rotate", "Give a key a new secret; it is shown only in this answer", shapes.NewKeyAnswerSerializer,
        shapes.RotateRequestSerializer,
    ),
    activate=_on_key("activate", "Switch a key on again"),
    deactivate=_on_key("deactivate", "Switch a key off for now"),
    revoke=_on_key("revoke", "Switch a key off for good"),
)  # fmt: skip
class KeysViewSet(_PeopleViewSet):
    """API keys. Needs a key with the scope `admin`, or somebody logged in to the admin.

    Changes take effect in every process within a second. Only owners may touch keys with the scope `admin`.
    """

    lookup_value_regex = "[A-Za-z0-9]{8}"
    serializers = {
        "list": shapes.KeyListRequestSerializer,
        "create": shapes.KeyCreateRequestSerializer,
        "partial_update": shapes.KeyChangeRequestSerializer,
        "rotate": shapes.RotateRequestSerializer,
    }

    def list(self, request: Request) -> Response:
        fields = self.fields()
        page, page_size, owner = fields["page"], fields["page_size"], fields.get("owner")
        keys = list_keys(owner=owner, offset=(page - 1) * page_size, limit=page_size)
        shown = [_key_fields(key) for key in keys]
        total = count_keys(owner)
        return Response({"status": True, "page": page, "page_size": page_size, "total": total, "keys": shown})

    def create(self, request: Request) -> Response:
        changes = self.changes()
        self._check(changes)

        def record(key: ApiKey) -> None:
            after = {"name": key.name, "owner": key.owner, "scopes": list(key.scopes)}
            self._record("key.create", key.prefix, after)

        return self._new(create_recorded_key(record, **changes), status=201)

    def retrieve(self, request: Request, pk: str) -> Response:
        self.fields()
        return self._answer(known_key(pk))

    def partial_update(self, request: Request, pk: str) -> Response:
        changes = self.changes()
        self._check(changes, pk)
        return self._answer(update_key(pk, changes, **self.who))

    def destroy(self, request: Request, pk: str) -> Response:
        self.fields()
        self._check({}, pk)
        delete_key(pk, **self.who)
        return Response({"status": True})

    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        grace_s = self.fields()["grace_s"]
        self._check({}, pk)
        return self._new(rotate_key(pk, grace_s=grace_s, **self.who))

    @action(detail=True, methods=["post"])
    def activate(self, request: Request, pk: str) -> Response:
        return self._switch(pk, active=True)

    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, pk: str) -> Response:
        return self._switch(pk, active=False)

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        self.fields()
        self._check({}, pk)
        key = revoke_key(pk)
        self._record("key.revoke", pk, {})
        return self._answer(key)

    def _switch(self, prefix: str, *, active: bool) -> Response:
        self.fields()
        self._check({}, prefix)
        switch_key(prefix, active=active, **self.who)
        return self._answer(known_key(prefix))

    def _check(self, changes: Mapping[str, Any], prefix: str | None = None) -> None:
        """Raises RoleMissing, NotFound."""
        scopes = [*changes.get("scopes", ()), *(known_key(prefix).scopes if prefix else ())]
        if not may_change_key(self.role, scopes):
            raise RoleMissing("Only an owner may do this with a key that has the scope admin.")
        if Scope.ADMIN in scopes and self.action in GIVES_POWER:
            self.ask_again()

    def _record(self, what: str, prefix: str, after: Mapping[str, Any]) -> None:
        who = self.who
        audit.record(
            actor=who["actor"], address=who["address"], action=what, target_kind="key", target_id=prefix, after=after
        )

    def _new(self, new: NewKey, *, status: int = 200) -> Response:
        return Response({"status": True, "api_key": new.key, "key": _key_fields(new.document)}, status=status)

    def _answer(self, key: ApiKey) -> Response:
        return Response({"status": True, "key": _key_fields(key)})


@extend_schema(tags=["admin"])
@extend_schema_view(
    list=extend_schema(
        operation_id="admin_users", summary="The users", responses={200: shapes.UserListAnswerSerializer, **_ERRORS}
    ),
    create=extend_schema(
        operation_id="admin_user_create", summary="Add a user who has keys", request=shapes.UserCreateRequestSerializer,
        responses={201: shapes.UserAnswerSerializer, **_ERRORS},
    ),
    retrieve=_on_user("get", "One user"),
    partial_update=_on_user("update", "Change a user or their plan", request=shapes.UserChangeRequestSerializer),
    destroy=_on_user("delete", "Delete a user without keys", shapes.DoneAnswerSerializer),
)  # fmt: skip
class UsersViewSet(_PeopleViewSet):
    """Whom keys belong to, and the limits their keys start from. Needs a key with the scope `admin`, or somebody logged
    in to the admin. Roles and passwords are not changed here. Only owners may change people who may enter the admin, or
    who have a key with the scope `admin`.
    """

    lookup_value_regex = "[A-Za-z0-9._@+-]{1,64}"
    serializers = {
        "list": PageRequestSerializer,
        "create": shapes.UserCreateRequestSerializer,
        "partial_update": shapes.UserChangeRequestSerializer,
    }

    def list(self, request: Request) -> Response:
        fields = self.fields()
        page, page_size = fields["page"], fields["page_size"]
        shown = [_user_fields(user) for user in list_users(offset=(page - 1) * page_size, limit=page_size)]
        return Response({"status": True, "page": page, "page_size": page_size, "total": count_users(), "users": shown})

    def create(self, request: Request) -> Response:
        changes = self.changes()
        user = add_user(changes.pop("username"), changes, **self.who)
        return Response({"status": True, "user": _user_fields(user)}, status=201)

    def retrieve(self, request: Request, pk: str) -> Response:
        self.fields()
        return Response({"status": True, "user": _user_fields(known_user(pk))})

    def partial_update(self, request: Request, pk: str) -> Response:
        changes = self.changes()
        self._check(pk)
        if changes.get("active") and has_admin_key(pk):
            self.ask_again()
        return Response({"status": True, "user": _user_fields(update_user(pk, changes, **self.who))})

    def destroy(self, request: Request, pk: str) -> Response:
        self.fields()
        self._check(pk)
        delete_user(pk, **self.who)
        return Response({"status": True})

    def _check(self, username: str) -> None:
        """Raises RoleMissing, NotFound."""
        if not may_change_user(self.role, known_user(username)):
            raise RoleMissing("Only an owner may change somebody who may enter the admin, or has a key that may.")


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        **{name: getattr(key, name) for name in _KEY_TEXTS},
        **{name: list(getattr(key, name)) for name in ("labels", "scopes", "allowed_cidrs", "allowed_origins")},
        **{name: iso_utc(getattr(key, name)) for name in _KEY_TIMES},
    }


def _user_fields(user: User) -> dict[str, Any]:
    return {
        **{name: getattr(user, name) for name in _USER_TEXTS},
        "keys": count_keys(user.username),
        "created_at": iso_utc(user.created_at),
    }
