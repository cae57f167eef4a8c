"""What the growth bench asks: both sizes in turn, words with as many hits in both, totals that are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from apps.core.redis import redis_client
from apps.keys.services import create_key
from bench.copies import smaller_copy
from bench.filling import AUDIO, NAMED_KEYS, beyond, fill
from bench.growth_asks import COUNTING, SLOW_MS, SLOW_ROUNDS, Asker, ask_in_turn, asker, tell
from bench.made_assets import NAMED
from bench.media import make_audio
from bench.report import Report
from tests.emptying import empty_hot_store, empty_mongo

FEW, FEW_KEYS = 300, 60
MANY, MANY_KEYS = 3_000, 600


class Noted:
    """Stands in for a process that asks: notes who was asked when."""

    def __init__(self, size: str, notes: list[tuple[str, str, int]], *, examined: int = 7, slow: str = "") -> None:
        self._size, self._notes, self._examined, self._slow = size, notes, examined, slow

    def names(self) -> list[str]:
        return ["one", COUNTING]

    def examined(self, name: str) -> int:
        return self._examined

    def cpu_ms(self, name: str, calls: int) -> float:
        self._notes.append((self._size, name, calls))
        return SLOW_MS + 1 if name == self._slow else 2.0 if self._size == "few" else 5.0


class TestInTurn:
    def test_each_round_asks_both_and_the_other_one_first_in_the_next(self):
        notes: list[tuple[str, str, int]] = []
        found = ask_in_turn(Noted("few", notes), Noted("many", notes), rounds=3)
        asked = [size for size, name, calls in notes if name == "one" and calls > 1]
        assert asked == ["few", "many", "many", "few", "few", "many"]
        assert found["one"] == {"examined": [7, 7], "few": [2.0] * 3, "many": [5.0] * 3}

    def test_what_takes_long_is_asked_less_often(self):
        notes: list[tuple[str, str, int]] = []
        rounds = SLOW_ROUNDS + 2
        found = ask_in_turn(Noted("few", notes), Noted("many", notes, slow=COUNTING), rounds=rounds)
        assert [len(found[name]["many"]) for name in ("one", COUNTING)] == [rounds, SLOW_ROUNDS]
        assert {calls for _, name, calls in notes if name == COUNTING} == {1}


class TestTelling:
    @pytest.mark.parametrize(
        ("examined", "looked", "ceiling"),
        [([7, 7], "7, the same with both", 1.1), ([90, 7], "90 and 7", 1.1), ([7, 9000], "7 and 9,000", None)],
    )
    def test_no_more_time_is_wanted_where_mongodb_looks_at_no_more(self, examined, looked, ceiling):
        report = Report("growth")
        times = {"few": [2.0, 4.0, 5.0], "many": [2.0, 5.0, 15.0]}
        tell(report, {"one": {"examined": examined, **times}, COUNTING: {"examined": [1, 2], **times}}, assets=MANY)
        ratio = report.figures[1]
        assert ratio.name == f"one: many to few (looked at: {looked})"
        assert (ratio.values, ratio.ceiling) == ([1.0, 1.25, 3.0], ceiling)

    def test_what_takes_longer_because_it_finds_more_is_named(self):
        report = Report("growth")
        times = {"few": [2.0], "many": [3.0]}
        same = {"examined": [5, 5], **times}
        tell(report, {"same": same, "more": {"examined": [5, 6], **times}, COUNTING: same}, assets=MANY)
        assert report.notes[0].endswith("more than 10 % longer: more")

    def test_what_counting_the_totals_takes_of_a_processor_has_a_bound(self):
        report = Report("growth")
        tell(report, {COUNTING: {"examined": [1, 2], "few": [20.0], "many": [90_000.0]}}, assets=MANY)
        assert "0.2 % of one processor with few and 3.3 % with many at most" in report.notes[1]


@pytest.fixture(scope="module")
def askers(_indexes) -> Iterator[tuple[Asker, Asker]]:
    """Few and many, each with its own MongoDB."""
    empty_mongo()
    redis_client().flushall()
    make_audio(AUDIO)
    key = create_key(name="bench", limit_per_hour=1_000_000, scopes=("info", "media", "search", "admin")).key
    fill(MANY, MANY_KEYS, once=lambda _, work: work())
    few_redis = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/1"
    with (
        smaller_copy(beyond(FEW, FEW_KEYS)) as few_address,
        asker(key=key, assets=FEW, keys=FEW_KEYS, MONGO_URI=few_address, REDIS_URL=few_redis) as few,
        asker(key=key, assets=MANY, keys=MANY_KEYS) as many,
    ):
        yield few, many
    empty_mongo()
    redis_client().flushall()
    empty_hot_store()


class TestAsking:
    def test_everything_is_answered(self, askers):
        for each in askers:
            assert all(each.cpu_ms(name, 1) > 0 for name in each.names())

    @pytest.mark.parametrize(
        ("name", "hits"),
        [("admin, files found by a word of 200", NAMED), ("admin, keys found by a word of 25", NAMED_KEYS)],
    )
    def test_some_words_have_as_many_hits_however_many_there_are(self, askers, name, hits):
        few, many = (each.examined(name) for each in askers)
        assert few == many
        assert many >= hits

    @pytest.mark.parametrize("thing", ["files", "keys"])
    def test_others_have_more_hits_the_more_there_are(self, askers, thing):
        few, many = (each.examined(f"admin, {thing} found by a word of a hundredth of all") for each in askers)
        assert few < many

    @pytest.mark.parametrize("name", ["admin, the overview", "totals by the API"])
    def test_totals_are_kept_where_they_are_shown(self, askers, name):
        assert len({each.examined(name) for each in askers}) == 1

    def test_counting_the_totals_looks_at_every_file(self, askers):
        assert [each.examined(COUNTING) for each in askers] == [pytest.approx(n, abs=40) for n in (FEW, MANY)]

    def test_each_video_that_is_asked_for_has_its_file(self, askers):
        few, many = (each.examined("the files of 50 videos") for each in askers)
        assert few == many >= 100  # an index key and a document each

    def test_who_asks_for_nonsense_ends_and_says_so(self, askers, capfd):
        with asker(key="none", assets=FEW, keys=FEW_KEYS) as each, pytest.raises(RuntimeError, match="has ended"):
            each.examined("nothing of that name")
        assert "KeyError" in capfd.readouterr().err
