"""What Health on the overview says of the hot store."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.core.cache import cache

from apps.core.redis import redis_client
from apps.core.tunables import MIB, set_tunable
from apps.dashboard.selectors import parts_that_take_time
from tests.downloads.library import AUDIO, VIDEO, put_hot
from tests.full_redis import full_redis

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")


def hot_store():
    cache.clear()
    return next(part for part in parts_that_take_time() if part.name == "Hot store")


def test_a_store_within_its_bound_is_fine():
    set_tunable("hot_max_bytes", 2 * MIB, actor="test")
    put_hot(AUDIO, bytes(MIB))
    assert (hot_store().tone, hot_store().text) == ("success", "1 MB of 2 MB")


def test_a_store_that_cannot_shrink_says_why():
    set_tunable("hot_max_bytes", 2 * MIB, actor="test")
    for key in (AUDIO, VIDEO):
        put_hot(key, bytes(2 * MIB))
    said = hot_store()
    assert said.tone == "warning"
    assert said.text.startswith("4 MB, more than the 2 MB it may have")


def disk():
    return next(part for part in parts_that_take_time() if part.name == "Disk")


@pytest.mark.parametrize(
    ("total", "free", "tone"),
    [
        (10**12, 2048 * MIB, "success"),
        (10**12, 600 * MIB, "warning"),
        (10**12, 200 * MIB, "danger"),
        (1024 * MIB, 300 * MIB, "success"),
        (1024 * MIB, 128 * MIB, "warning"),
        (1024 * MIB, 60 * MIB, "danger"),
    ],
)
def test_a_disk_is_told_by_what_is_free_of_it(monkeypatch, total, free, tone):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=total, free=free))
    said = disk()
    assert said.tone == tone
    assert said.text.startswith("Full: ") == (tone == "danger")
    assert "free where the hot store is" in said.text


def test_a_redis_that_refuses_is_no_reason_to_raise():
    with full_redis():
        assert redis_client().ping()
        assert {part.name for part in parts_that_take_time()} >= {"Redis", "Hot store"}
