import mongoengine
import pytest

from apps.core.indexes import documents, ensure_indexes
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.selectors import least_recently_verified


class TestEnsureIndexes:
    def test_makes_the_unique_index_of_assets_and_can_be_repeated(self, mongo):
        first = ensure_indexes()
        assert ensure_indexes() == first
        indexes = mongoengine.get_db()["content_cache"].index_information()
        assert any(
            index.get("unique") and [name for name, _ in index["key"]] == ["video_id", "kind", "variant"]
            for index in indexes.values()
        )

    def test_what_is_verified_next_is_read_in_order_and_nothing_else(self, mongo):
        rows = [{"_id": f"{number:024}", "video_id": f"v{number:010}", "state": "cached"} for number in range(20)]
        Asset._get_collection().insert_many(rows)
        database = mongoengine.get_db()
        database.command("profile", 2)
        try:
            assert len(least_recently_verified(3)) == 3
        finally:
            database.command("profile", 0)
        asked = list(database["system.profile"].find({"ns": f"{database.name}.content_cache", "op": "query"}))
        database.drop_collection("system.profile")
        assert [(row["docsExamined"], row.get("hasSortStage", False)) for row in asked] == [(3, False)]


class TestDocuments:
    @pytest.mark.parametrize("document", documents(), ids=lambda document: document.__name__)
    def test_fields_that_a_newer_version_wrote_do_not_stop_this_one(self, mongo, document):
        document._get_collection().insert_one({"of_a_newer_version": 1})
        assert len(document.objects.limit(1)) == 1

    def test_also_inside_other_documents(self, mongo):
        part = {"index": 0, "offset": 0, "size": 1, "state": "stored", "of_a_newer_version": 1}
        Asset._get_collection().insert_one({"_id": "a" * 24, "parts": [part]})
        assert Asset.objects.get().parts[0].size == 1
