"""/api/v1/admin/keys and /api/v1/admin/users, by keys with the scope admin and by people in the admin."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from apps.core.documents import AuditEntry
from apps.core.errors import ApiError
from apps.keys.authentication import authenticate
from apps.keys.documents import Role, Scope
from apps.keys.services import create_key, create_user
from tests.downloads.conftest import Api

KEYS = "/api/v1/admin/keys"
USERS = "/api/v1/admin/users"
PASSWORD = "correct horse battery"


class Caller:
    """Sends JSON, with a key or with the session of somebody in the admin."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, method: str, path: str, **fields):
        if method == "GET":
            return self.client.get(path, fields)
        return self.client.generic(method, path, json.dumps(fields), content_type="application/json")


@pytest.fixture
def admin(api: Api) -> Caller:
    return Caller(Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key).client)


@pytest.fixture
def person(api: Api, monkeypatch):
    """Somebody logged in with a role."""

    def enter(role: Role) -> Caller:
        create_user(username=f"the-{role.value}", password=PASSWORD, role=role)
        client = Client(headers={"Accept": "application/json"})
        answer = client.post("/admin/login", {"username": f"the-{role.value}", "password": PASSWORD})
        assert answer.status_code == 302
        return Caller(client)

    return enter


def error_of(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


class TestKeys:
    def test_the_life_of_a_key(self, admin):
        made = admin(
            "POST", KEYS, name="bot", owner="ada", scopes=["info"], labels=["a", "b"], limit_per_day=5,
            allowed_cidrs=["192.0.2.0/24"], bind_links=True,
        )  # fmt: skip
        assert made.status_code == 201
        key, prefix = made.json()["api_key"], made.json()["key"]["prefix"]
        grant = authenticate(key, "192.0.2.1")
        assert (grant.owner, grant.scopes, grant.limit_per_day, grant.bind_links) == ("ada", {"info"}, 5, True)
        changed = admin("PATCH", f"{KEYS}/{prefix}", limit_per_day=None, allowed_cidrs=[], name="bot 2").json()["key"]
        assert (changed["name"], changed["limit_per_day"], changed["bind_links"]) == ("bot 2", None, True)
        rotated = admin("POST", f"{KEYS}/{prefix}/rotate", grace_s=0).json()
        assert authenticate(rotated["api_key"]).name == "bot 2"
        with pytest.raises(ApiError):
            authenticate(key)
        assert admin("POST", f"{KEYS}/{prefix}/deactivate").json()["key"]["active"] is False
        assert admin("POST", f"{KEYS}/{prefix}/activate").json()["key"]["active"] is True
        assert admin("GET", f"{KEYS}/{prefix}").json()["key"]["labels"] == ["a", "b"]
        assert admin("POST", f"{KEYS}/{prefix}/revoke").json()["key"]["revoked_at"]
        assert error_of(admin("POST", f"{KEYS}/{prefix}/activate")) == (409, "conflict")
        assert admin("DELETE", f"{KEYS}/{prefix}").json() == {"status": True}
        assert error_of(admin("GET", f"{KEYS}/{prefix}")) == (404, "not_found")
        actions = [entry.action for entry in AuditEntry.objects(target_id=prefix).order_by("at")]
        assert actions == [
            "key.create", "key.update", "key.rotate", "key.deactivate", "key.activate", "key.revoke", "key.delete",
        ]  # fmt: skip

    def test_lists_page_by_page_and_by_owner_without_secrets(self, admin):
        for number in range(3):
            create_key(name=f"n{number}", owner="ada" if number else "")
        page = admin("GET", KEYS, page=1, page_size=2).json()
        assert (page["total"], len(page["keys"])) == (5, 2)
        own = admin("GET", KEYS, owner="ada").json()
        assert [key["name"] for key in own["keys"]] == ["n2", "n1"]
        assert "secret_sha256" not in json.dumps(page)

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"limit_per_hour": 0}, "limit_per_hour"),
            ({"scopes": ["everything"]}, "scopes"),
            ({"allowed_cidrs": ["here"]}, "allowed_cidrs"),
            ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"active": True}, "active"),
            ({"name": ""}, "name"),
        ],
    )
    def test_says_which_field_is_wrong(self, admin, fields, name):
        prefix = create_key(name="bot").document.prefix
        answer = admin("PATCH", f"{KEYS}/{prefix}", **fields)
        assert (error_of(answer), answer.json()["parameter"]) == ((400, "invalid_parameter"), name)

    def test_a_key_without_the_scope_admin_reaches_nothing(self, api):
        caller = Caller(api.client)
        prefix = api.prefix
        for method, path in (
            ("GET", KEYS), ("POST", KEYS), ("GET", f"{KEYS}/{prefix}"), ("PATCH", f"{KEYS}/{prefix}"),
            ("DELETE", f"{KEYS}/{prefix}"), ("POST", f"{KEYS}/{prefix}/rotate"), ("GET", USERS), ("POST", USERS),
        ):  # fmt: skip
            assert error_of(caller(method, path)) == (403, "scope_missing"), path

    def test_an_operator_may_not_make_or_take_over_a_key_that_is_as_good_as_an_owner(self, admin, person):
        powerful = create_key(name="powerful", scopes=(Scope.ADMIN,)).document.prefix
        plain = create_key(name="plain").document.prefix
        operator = person(Role.OPERATOR)
        for method, path, fields in (
            ("POST", KEYS, {"name": "x", "scopes": ["admin"]}),
            ("PATCH", f"{KEYS}/{plain}", {"scopes": ["info", "admin"]}),
            ("PATCH", f"{KEYS}/{powerful}", {"scopes": ["info"]}),
            ("POST", f"{KEYS}/{powerful}/rotate", {}),
            ("DELETE", f"{KEYS}/{powerful}", {}),
            ("POST", f"{KEYS}/{powerful}/revoke", {}),
            ("POST", f"{KEYS}/{powerful}/deactivate", {}),
        ):
            assert error_of(operator(method, path, **fields)) == (403, "role_missing"), path
        assert operator("POST", KEYS, name="y").status_code == 201
        assert operator("POST", f"{KEYS}/{plain}/rotate").status_code == 200
        assert error_of(person(Role.VIEWER)("POST", KEYS, name="y")) == (403, "role_missing")
        owner = person(Role.OWNER)
        for method, path, fields in (
            ("POST", KEYS, {"name": "z", "scopes": ["admin"]}),
            ("PATCH", f"{KEYS}/{plain}", {"scopes": ["info", "admin"]}),
            ("POST", f"{KEYS}/{powerful}/rotate", {}),
        ):  # an open browser is not enough
            refused = owner(method, path, **fields)
            assert error_of(refused) == (403, "role_missing")
            assert "password again" in refused.json()["message"]
        assert owner("POST", f"{KEYS}/{powerful}/deactivate").status_code == 200
        assert owner.client.post("/admin/account/confirm", {"password": PASSWORD}).status_code == 302
        assert owner("POST", KEYS, name="z", scopes=["admin"]).status_code == 201
        assert admin("POST", KEYS, name="by key", scopes=["admin"]).status_code == 201


class TestUsers:
    def test_the_life_of_a_user(self, admin):
        made = admin("POST", USERS, username="ada", contact="ada@example.org", limit_per_hour=7)
        assert (made.status_code, made.json()["user"]["role"]) == (201, "none")
        assert error_of(admin("POST", USERS, username="ada")) == (409, "conflict")
        key = create_key(name="bot", owner="ada").key
        assert authenticate(key).limit_per_hour == 7
        changed = admin("PATCH", f"{USERS}/ada", limit_per_hour=8, notes="n").json()["user"]
        assert (changed["limit_per_hour"], changed["active"], changed["keys"]) == (8, True, 1)
        assert authenticate(key).limit_per_hour == 8
        admin("PATCH", f"{USERS}/ada", active=False)
        with pytest.raises(ApiError, match="switched off"):
            authenticate(key)
        assert error_of(admin("DELETE", f"{USERS}/ada")) == (409, "conflict")
        admin("DELETE", f"{KEYS}/{key[3:11]}")
        assert admin("DELETE", f"{USERS}/ada").status_code == 200
        assert error_of(admin("GET", f"{USERS}/ada")) == (404, "not_found")

    def test_roles_and_passwords_cannot_be_set(self, admin):
        for field, value in (("role", "owner"), ("password", "x" * 20), ("password_hash", "x")):
            assert error_of(admin("POST", USERS, username="eve", **{field: value})) == (400, "invalid_parameter")

    def test_who_has_an_admin_key_is_changed_by_owners_only_and_switched_on_after_the_password(self, admin, person):
        key = create_key(name="powerful", owner="bob", scopes=(Scope.INFO, Scope.ADMIN)).key
        operator = person(Role.OPERATOR)
        for fields in ({"active": False}, {"limit_per_hour": 1}, {"notes": "n"}):
            assert error_of(operator("PATCH", f"{USERS}/bob", **fields)) == (403, "role_missing"), fields
        assert error_of(operator("DELETE", f"{USERS}/bob")) == (403, "role_missing")
        assert authenticate(key).limit_per_hour > 1
        owner = person(Role.OWNER)
        assert owner("PATCH", f"{USERS}/bob", active=False).status_code == 200  # off at once
        refused = owner("PATCH", f"{USERS}/bob", active=True)
        assert error_of(refused) == (403, "role_missing")
        assert "password again" in refused.json()["message"]
        with pytest.raises(ApiError, match="switched off"):
            authenticate(key)
        owner.client.post("/admin/account/confirm", {"password": PASSWORD})
        assert owner("PATCH", f"{USERS}/bob", active=True).status_code == 200
        assert authenticate(key)
        create_key(name="plain", owner="ann")
        assert operator("PATCH", f"{USERS}/ann", active=False).status_code == 200

    def test_nobody_switches_people_of_the_admin_off_here_and_only_owners_touch_them(self, admin, person):
        operator = person(Role.OPERATOR)
        create_user(username="boss", password=PASSWORD, role=Role.OWNER)
        assert error_of(operator("PATCH", f"{USERS}/boss", active=False)) == (403, "role_missing")
        assert error_of(operator("DELETE", f"{USERS}/boss")) == (403, "role_missing")
        assert error_of(admin("DELETE", f"{USERS}/boss")) == (409, "conflict")
        assert error_of(admin("PATCH", f"{USERS}/boss", active=False)) == (409, "conflict")
        listed = operator("GET", USERS).json()["users"]
        assert {user["username"] for user in listed} == {"boss", "the-operator"}
        assert "password" not in json.dumps(listed)


class TestMe:
    def test_tells_a_keys_own_limits_and_use(self, api):
        new = create_key(name="bot", owner="ada", limit_per_hour=9, limit_per_day=20, concurrent_streams=3)
        answer = Api(new.key).get("me").json()
        assert (answer["prefix"], answer["owner"], answer["limits"]["concurrent_streams"]) == (
            new.document.prefix, "ada", 3,
        )  # fmt: skip
        assert [(row["window"], row["limit"], row["used"]) for row in answer["windows"]] == [
            ("hour", 9, 1), ("day", 20, 1),
        ]  # fmt: skip
        assert answer["now"] == {"streams": 0, "jobs": 0}
        assert answer["last_24_hours"]["totals"]["requests"] == 0
        assert len(answer["last_24_hours"]["series"]) >= 24
        assert new.key not in json.dumps(answer)

    def test_needs_a_key(self, api):
        answer = Client(headers={"Accept": "application/json"}).get("/api/v1/me")
        assert error_of(answer) == (401, "key_missing")
