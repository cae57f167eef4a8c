"""Fixtures of the tests of keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apps.keys.authentication import forget_cached_keys


@pytest.fixture(autouse=True)
def _no_cached_keys() -> Iterator[None]:
    forget_cached_keys()
    yield
    forget_cached_keys()
