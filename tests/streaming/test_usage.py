"""How large the hot store is, and how seldom that is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.cache import cache

from apps.core.hot_names import hot_store_name
from apps.streaming import usage
from apps.streaming.hotstore import HotStore, HotUsage
from apps.streaming.usage import hot_usage
from tests.streaming.media import make_bytes
from tests.waiting import Clock


class TestUsage:
    def test_is_the_sum_of_the_entries_and_of_nothing_else(self, store: HotStore) -> None:
        for number in range(3):
            with store.create(f"{number}" * 24, 1, resume=False) as writer:
                writer.append(make_bytes(100_000, seed=number))
                if number:
                    writer.finish()
        store.scratch_dir("9" * 24, 1).joinpath("0.part").write_bytes(bytes(50_000))
        found = store.usage()
        assert found == (3, sum(entry.disk_bytes for entry in store.entries()))
        assert found.disk_bytes >= 300_000
        assert sorted(store.asset_ids()) == [f"{number}" * 24 for number in range(3)]

    def test_of_a_store_that_is_not_there_is_nothing(self, tmp_path: Path) -> None:
        assert HotStore(tmp_path / "none").usage() == (0, 0)


@pytest.mark.usefixtures("redis_server", "hot_root")
def test_what_takes_long_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), []

    def slow(store: HotStore) -> HotUsage:
        looks.append(store)
        clock.ahead_s += 4.0
        return HotUsage(len(looks), 7)

    monkeypatch.setattr(usage, "time", clock)
    monkeypatch.setattr(HotStore, "usage", slow)
    assert [hot_usage(), hot_usage()] == [(1, 7), (1, 7)]
    key = f"{usage.KEY}{hot_store_name()}"
    assert 60 < cache.ttl(key) <= 120
    cache.delete(key)
    assert hot_usage() == (2, 7)
