"""People with each role, and a browser's session for each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.test import Client

from apps.keys.documents import Role, User
from apps.keys.services import create_user

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch):
    """Argon2 with the least work: these tests log in often."""
    monkeypatch.setattr(Argon2PasswordHasher, "time_cost", 1)
    monkeypatch.setattr(Argon2PasswordHasher, "memory_cost", 64)
    monkeypatch.setattr(Argon2PasswordHasher, "parallelism", 1)


@pytest.fixture
def server(mongo, redis_server):
    """An empty MongoDB and an empty Redis, which the pages read and write."""


@pytest.fixture
def make_user(server) -> Callable[[Role], User]:
    def make(role: Role) -> User:
        return create_user(username=f"the-{role.value}", password=PASSWORD, role=role)

    return make


@pytest.fixture
def log_in(make_user) -> Callable[[Role], Client]:
    """A browser that is logged in as somebody with this role."""

    def enter(role: Role) -> Client:
        user = make_user(role)
        client = Client()
        answer = client.post("/admin/login", {"username": user.username, "password": PASSWORD})
        assert answer.status_code == 302, answer.content
        return client

    return enter


@pytest.fixture
def viewer(log_in) -> Client:
    return log_in(Role.VIEWER)


@pytest.fixture
def operator(log_in) -> Client:
    return log_in(Role.OPERATOR)


@pytest.fixture
def owner(log_in) -> Client:
    return log_in(Role.OWNER)
