import re
import threading
from typing import ClassVar

import mongoengine
import pytest
from django.conf import settings

from apps.core import indexes
from apps.core.indexes import REPLACED, documents, ensure_indexes
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.selectors import least_recently_verified
from tests.waiting import wait_until

SOCKET_TIMEOUT_MS = 2000


class TestEnsureIndexes:
    def test_makes_the_unique_index_of_assets_and_can_be_repeated(self, mongo):
        first = ensure_indexes()
        assert ensure_indexes() == first
        indexes = mongoengine.get_db()["content_cache"].index_information()
        assert any(
            index.get("unique") and [name for name, _ in index["key"]] == ["video_id", "kind", "variant"]
            for index in indexes.values()
        )

    @pytest.fixture
    def hurried(self, mongo, monkeypatch):
        """A collection whose client waits two seconds for answers, and that needs a new index."""
        options = {"uuidRepresentation": "standard", "socketTimeoutMS": SOCKET_TIMEOUT_MS}
        client = mongoengine.connect(alias="hurried", host=settings.SERVICES.mongo_uri, **options)

        class Hurried(mongoengine.Document):
            name = mongoengine.StringField()
            meta: ClassVar = {"db_alias": "hurried", "auto_create_index": False, "indexes": ["name"]}

        client.get_database(mongoengine.get_db().name)["hurried"].insert_many([{"name": "a"}, {"name": "b"}])
        monkeypatch.setattr(indexes, "documents", lambda: [Hurried])
        yield Hurried._get_collection()
        Hurried.drop_collection()
        mongoengine.disconnect("hurried")

    def test_an_index_that_takes_longer_than_an_answer_may_is_waited_for(self, hurried, monkeypatch):
        monkeypatch.setattr(indexes, "MANY", 2)
        made, said = [], []
        making = threading.Thread(target=lambda: made.append(ensure_indexes(said.append)), daemon=True)
        client = mongoengine.get_db().client
        with client.start_session() as session, session.start_transaction():
            held = mongoengine.get_db()["hurried"]
            held.insert_one({"name": "c"}, session=session)  # no index can be made before this is over
            making.start()
            running = {"command.createIndexes": "hurried", "microsecs_running": {"$gt": 1500 * SOCKET_TIMEOUT_MS}}
            wait_until(
                lambda: (
                    not making.is_alive()
                    or list(client.admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": running}]))
                )
            )
            assert making.is_alive()
        making.join(60)
        assert made == [{"hurried": ["_id_", "name_1"]}]
        assert [line.partition(", over ")[0] for line in said] == ["Making a new index of hurried"]

    def test_what_was_replaced_is_dropped(self, mongo):
        database = mongoengine.get_db()
        now = ensure_indexes()
        for collection, names in REPLACED.items():
            for name in names:
                fields = re.findall(r"(\w+?)_(-?1)(?:_|$)", name)
                assert database[collection].create_index([(field, int(way)) for field, way in fields]) == name
        assert ensure_indexes() == now
        assert {name: sorted(database[name].index_information()) for name in REPLACED} == {
            name: now[name] for name in REPLACED
        }

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
