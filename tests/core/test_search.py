"""Finding documents by the beginnings of words, and that it is the index that finds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.indexes import fill_search_words
from apps.core.search import MAX_WORD_LENGTH, MAX_WORDS, search_words, words_where
from apps.downloads.services.claims import ensure_asset
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind


class TestSearchWords:
    def test_case_accents_and_signs_do_not_matter(self):
        assert search_words("Café del Mar - LIVE! (live)", None, "Über_uns") == [
            "cafe", "del", "mar", "live", "uber", "uns",
        ]  # fmt: skip

    @given(st.text(max_size=3000))
    def test_is_bounded_and_stable_for_any_text(self, text):
        words = search_words(text)
        assert len(words) <= MAX_WORDS
        assert all(0 < len(word) <= MAX_WORD_LENGTH for word in words)


def asset(number: int, title: str, uploader: str = "") -> Asset:
    key = AssetKey(f"video{number:06}", MediaKind.AUDIO, "m4a")
    ensure_asset(key, title=title, uploader=uploader)
    return Asset.objects.get(id=key.asset_id)


def found(query: str) -> list[str]:
    return sorted(asset.title for asset in Asset.objects(__raw__={"$and": words_where(query)}))


class TestSearching:
    @pytest.mark.parametrize("query", ["rag", "EVENING", "ravi", "ev rag", "Évening", "video000001"])
    def test_finds_by_the_beginning_of_any_word(self, mongo, query):
        asset(1, "Evening raga", "Ravi")
        asset(2, "Morning song")
        assert found(query) == ["Evening raga"]

    @pytest.mark.parametrize("query", ["aga", "evening song", ".*", "***", "-"])
    def test_finds_nothing_else(self, mongo, query):
        asset(1, "Evening raga")
        asset(2, "Morning song")
        assert found(query) == []

    def test_reads_the_index_and_only_what_fits(self, mongo):
        for number in range(200):
            asset(number, f"title{number}")
        plan = Asset._get_collection().find({"$and": words_where("title77")}).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
        assert plan["executionStats"]["totalDocsExamined"] == 1

    def test_what_an_older_version_wrote_is_found_after_the_start(self, mongo):
        asset(1, "Evening raga")
        Asset.objects.update(unset__words=1)
        assert found("raga") == []
        assert (fill_search_words(), fill_search_words()) == (1, 0)
        assert found("raga") == ["Evening raga"]
