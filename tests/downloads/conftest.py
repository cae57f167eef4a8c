"""Fixtures of the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from apps.keys.authentication import forget_cached_keys
from apps.keys.services import create_key


@dataclass(frozen=True)
class Api:
    """A caller with a key, straight at Django."""

    key: str

    @property
    def prefix(self) -> str:
        return self.key[3:11]

    def get(self, path: str, **fields: Any) -> Any:
        return self.client.get(f"/api/v1/{path}", fields)

    def post(self, path: str, body: Any, content_type: str = "application/json") -> Any:
        return self.client.post(f"/api/v1/{path}", body, content_type=content_type)

    def delete(self, path: str) -> Any:
        return self.client.delete(f"/api/v1/{path}")

    @property
    def client(self) -> Client:
        return Client(headers={"X-API-Key": self.key, "Accept": "application/json"})


@pytest.fixture
def _no_cached_keys() -> Iterator[None]:
    forget_cached_keys()
    yield
    forget_cached_keys()


@pytest.fixture
def api(mongo: None, redis_server: None, hot_root: Any, _no_cached_keys: None) -> Api:
    """A caller with a good key; nothing is stored and nothing runs."""
    return Api(create_key(name="test").key)


@pytest.fixture
def other_api(api: Api) -> Api:
    return Api(create_key(name="other").key)
