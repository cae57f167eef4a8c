import mongoengine

from apps.core.indexes import ensure_indexes


class TestEnsureIndexes:
    def test_makes_the_unique_index_of_assets_and_can_be_repeated(self, mongo):
        first = ensure_indexes()
        assert ensure_indexes() == first
        indexes = mongoengine.get_db()["content_cache"].index_information()
        assert any(
            index.get("unique") and [name for name, _ in index["key"]] == ["video_id", "kind", "variant"]
            for index in indexes.values()
        )
