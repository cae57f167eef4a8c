"""The API's admin routes, asked by people who are logged in to the admin."""

from __future__ import annotations

import pytest
from django.test import Client

from apps.keys.documents import Role
from apps.keys.roles import RANKS, reaches, role_needed
from apps.keys.services import create_key, create_user

pytestmark = [pytest.mark.urls("tests.urls_for_tests"), pytest.mark.usefixtures("mongo", "redis_server")]
PASSWORD = "correct horse battery"


def logged_in(role: Role, **options: bool) -> Client:
    create_user(username=f"the-{role}", password=PASSWORD, role=role)
    client = Client(**options)
    client.get("/sign-in", {"name": f"the-{role}"})
    return client


def test_a_role_reaches_itself_and_the_lower_ones():
    assert [reaches(role, Role.OPERATOR) for role in Role] == [True, True, False, False]
    assert not any(reaches(Role.NONE, role) for role in RANKS)
    assert [role_needed(method) for method in ("GET", "HEAD", "POST", "DELETE")] == [
        Role.VIEWER, Role.VIEWER, Role.OPERATOR, Role.OPERATOR,
    ]  # fmt: skip


class TestSessionsInTheApi:
    @pytest.mark.parametrize(
        ("role", "codes"), [(Role.VIEWER, (200, 403, 403)), (Role.OPERATOR, (200, 200, 403)), (Role.OWNER, (200,) * 3)]
    )
    def test_each_role_gets_what_it_may(self, role, codes):
        client = logged_in(role)
        answers = (client.get("/api/admin"), client.post("/api/admin"), client.delete("/api/secrets"))
        assert tuple(answer.status_code for answer in answers) == codes
        for answer in answers:
            if answer.status_code == 403:
                assert answer.json()["error"] == "role_missing"

    def test_are_worth_nothing_on_routes_that_are_not_the_admins(self):
        answer = logged_in(Role.OWNER).get("/api/keyed")
        assert (answer.status_code, answer.json()["error"]) == (401, "key_missing")

    def test_nobody_and_a_user_without_a_role_get_401(self):
        assert Client().get("/api/admin").status_code == 401
        assert logged_in(Role.NONE).get("/api/admin").status_code == 401

    def test_a_change_needs_the_csrf_token(self):
        client = logged_in(Role.OPERATOR, enforce_csrf_checks=True)
        refused = client.post("/api/admin")
        assert (refused.status_code, refused.json()["error"]) == (403, "scope_missing")
        token = "a" * 32
        client.cookies["csrftoken"] = token
        assert client.post("/api/admin", headers={"X-CSRFToken": token}).status_code == 200

    def test_a_key_that_is_sent_along_decides(self):
        key = create_key(name="plain").key
        answer = logged_in(Role.OWNER).get("/api/admin", headers={"X-API-Key": key})
        assert (answer.status_code, answer.json()["error"]) == (403, "scope_missing")
