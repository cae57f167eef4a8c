import mongoengine
import pytest

from apps.core.indexes import documents, ensure_indexes
from apps.telegram_cache.documents import Asset


class TestEnsureIndexes:
    def test_makes_the_unique_index_of_assets_and_can_be_repeated(self, mongo):
        first = ensure_indexes()
        assert ensure_indexes() == first
        indexes = mongoengine.get_db()["content_cache"].index_information()
        assert any(
            index.get("unique") and [name for name, _ in index["key"]] == ["video_id", "kind", "variant"]
            for index in indexes.values()
        )


class TestDocuments:
    @pytest.mark.parametrize("document", documents(), ids=lambda document: document.__name__)
    def test_fields_that_a_newer_version_wrote_do_not_stop_this_one(self, mongo, document):
        document._get_collection().insert_one({"of_a_newer_version": 1})
        assert len(document.objects.limit(1)) == 1

    def test_also_inside_other_documents(self, mongo):
        part = {"index": 0, "offset": 0, "size": 1, "state": "stored", "of_a_newer_version": 1}
        Asset._get_collection().insert_one({"_id": "a" * 24, "parts": [part]})
        assert Asset.objects.get().parts[0].size == 1
