"""Backup and restore: nothing readable that is secret, and a broken file changes nothing."""

from __future__ import annotations

import gzip
import io
import json
from io import StringIO

import mongoengine
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from apps.core import backup as backup_module
from apps.core import restore as restore_module
from apps.core.backup import BackupBroken, backed_up_collections, check_backup, write_backup
from apps.core.errors import Conflict, InvalidParameter
from apps.core.indexes import documents
from apps.core.restore import ASIDE, restore_backup
from apps.keys.admins import end_sessions
from apps.keys.documents import ApiKey, Role, User
from apps.keys.people import find_person, person_prefix
from apps.keys.services import create_key, create_user
from tests.dashboard.samples import fill_server
from tests.emptying import empty_mongo

pytestmark = pytest.mark.usefixtures("mongo")
PASSWORD = "correct horse battery"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "backup.jsonl.gz"


def everything() -> dict[str, list]:
    database = mongoengine.get_db()
    return {name: list(database[name].find().sort("_id")) for name in backed_up_collections()}


def without_session_versions(collections: dict[str, list]) -> dict[str, list]:
    for user in collections["users"]:
        del user["session_version"]
    return collections


def index_names(collections) -> dict[str, set[str]]:
    return {name: set(mongoengine.get_db()[name].index_information()) - {"_id_"} for name in collections}


class TestThereAndBack:
    def test_every_collection_comes_back_as_it_was_with_its_indexes(self, path):
        fill_server()
        create_user(username="ada", password=PASSWORD, role=Role.OWNER)
        before = everything()
        indexes = index_names(before)
        contents = write_backup(path)
        assert contents.counts == {name: len(found) for name, found in before.items()}
        assert contents.counts["usage_stats"] > 0
        empty_mongo()
        assert restore_backup(path) == check_backup(path) == contents
        assert without_session_versions(everything()) == without_session_versions(before)
        assert index_names(before) == indexes
        assert not [name for name in mongoengine.get_db().list_collection_names() if name.startswith(ASIDE)]

    def test_no_session_and_no_link_of_the_admin_comes_back_to_life(self, path, redis_server):
        ada = create_user(username="ada", password=PASSWORD, role=Role.OWNER)
        first, second = Client(), Client()
        for client in (first, second):
            client.post("/admin/login", {"username": "ada", "password": PASSWORD})
        link_prefix = person_prefix(ada)
        write_backup(path)
        end_sessions(ada)
        second.post("/admin/login", {"username": "ada", "password": PASSWORD})
        assert [client.get("/admin/").status_code for client in (first, second)] == [302, 200]
        restore_backup(path, replace=True)
        assert [client.get("/admin/").status_code for client in (first, second)] == [302, 302]
        assert find_person(link_prefix) is None
        first.post("/admin/login", {"username": "ada", "password": PASSWORD})
        assert first.get("/admin/").status_code == 200
        ada.reload()
        assert find_person(person_prefix(ada)) == ada

    def test_the_file_is_the_owners_alone_and_holds_nothing_secret(self, path):
        fill_server()
        key = create_key(name="a").key
        create_user(username="ada", password=PASSWORD, role=Role.OWNER)
        write_backup(path)
        assert path.stat().st_mode & 0o777 == 0o600
        text = gzip.decompress(path.read_bytes()).decode()
        for secret in (key, key[12:], PASSWORD, "a-secret-token-of-a-bot"):
            assert secret not in text
        assert key[3:11] in text
        assert sorted(file.name for file in path.parent.iterdir()) == [path.name]

    def test_everything_durable_is_in_it(self):
        left_out = {document._get_collection_name() for document in documents()} - set(backed_up_collections())
        assert left_out <= backup_module.CACHES

    def test_can_leave_the_usage_out(self, path):
        fill_server()
        assert "usage_stats" not in write_backup(path, with_usage=False).counts
        assert mongoengine.get_db()["usage_stats"].count_documents({}) > 0

    def test_a_file_that_is_there_stays(self, path):
        write_backup(path)
        with pytest.raises(Conflict):
            write_backup(path)
        write_backup(path, overwrite=True)
        with pytest.raises(InvalidParameter):
            write_backup(path.parent / "nowhere" / "b.gz")


class TestRefusing:
    def test_a_database_that_holds_something_is_left_alone_without_replace(self, path):
        create_key(name="first")
        write_backup(path)
        later = create_key(name="later").document
        with pytest.raises(Conflict, match="api_keys"):
            restore_backup(path)
        assert ApiKey.objects(prefix=later.prefix).first() is not None
        restore_backup(path, replace=True)
        assert [key.name for key in ApiKey.objects] == ["first"]

    @pytest.mark.parametrize(
        "damage",
        [
            "cut",
            "cut line",
            "flipped",
            "line gone",
            "line twice",
            "not gzip",
            "bits",
            "other format",
            "unknown",
            "empty",
        ],
    )
    def test_a_broken_file_changes_nothing(self, path, damage):
        for name in ("a", "b", "c"):
            create_key(name=name)
        write_backup(path)
        path.write_bytes(_damaged(path.read_bytes(), damage))
        before = everything()
        with pytest.raises(BackupBroken):
            restore_backup(path, replace=True)
        assert everything() == before

    def test_documents_that_break_an_index_change_nothing(self, path):
        create_key(name="a")
        write_backup(path)
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        [line] = [line for line in lines if line.startswith(b'["api_keys"')]
        value = json.loads(line)
        value[1]["_id"] = {"$oid": "0" * 24}
        changed = [*lines[:-1], json.dumps(value).encode() + b"\n"]
        counts = json.loads(lines[-1])["counts"] | {"api_keys": 2}
        path.write_bytes(_closed(changed, counts))
        before = everything()
        with pytest.raises(BackupBroken):
            restore_backup(path, replace=True)
        assert everything() == before

    def test_a_stop_in_the_middle_changes_nothing_and_is_tidied_up(self, path, monkeypatch):
        create_key(name="a")
        write_backup(path)
        before = everything()

        def stops(_found):
            raise KeyboardInterrupt
            yield

        monkeypatch.setattr(restore_module, "_batches", stops)
        with pytest.raises(KeyboardInterrupt):
            restore_backup(path, replace=True)
        assert everything() == before
        assert not [name for name in mongoengine.get_db().list_collection_names() if name.startswith(ASIDE)]


def _closed(lines: list[bytes], counts: dict[str, int]) -> bytes:
    """A file with a right sum."""
    digest = backup_module.hashlib.sha256(b"".join(lines)).hexdigest()
    end = json.dumps({"counts": counts, "sha256": digest}).encode() + b"\n"
    return gzip.compress(b"".join([*lines, end]))


def _damaged(whole: bytes, damage: str) -> bytes:
    text = gzip.decompress(whole)
    lines = text.splitlines(keepends=True)
    return {
        "cut": lambda: whole[: len(whole) // 2],
        "cut line": lambda: gzip.compress(text[:-20]),
        "flipped": lambda: gzip.compress(text.replace(b'"active": true', b'"active": null', 1)),
        "line gone": lambda: gzip.compress(b"".join(lines[:2] + lines[3:])),
        "line twice": lambda: gzip.compress(b"".join(lines[:2] + lines[1:])),
        "not gzip": lambda: text,
        "bits": lambda: whole[:10] + b"\xff" * 20 + whole[30:],
        "other format": lambda: gzip.compress(text.replace(b"ytserver-backup", b"other-backup", 1)),
        "unknown": lambda: _closed([lines[0].replace(b'"api_keys"', b'"api_keys", "newer_things"')], {}),
        "empty": lambda: gzip.compress(b""),
    }[damage]()


class TestCommands:
    def test_there_and_back(self, path, monkeypatch):
        create_user(username="ada", password=PASSWORD, role=Role.OWNER)
        out = StringIO()
        call_command("backup", str(path), "--json", stdout=out)
        assert json.loads(out.getvalue())["counts"]["users"] == 1
        empty_mongo()
        monkeypatch.setattr("sys.stdin", io.StringIO("restore\n"))
        with pytest.raises(CommandError, match="Say --yes"):
            call_command("restore", str(path))
        call_command("restore", str(path), "--check", stdout=out)
        assert User.objects.count() == 0
        call_command("restore", str(path), "--yes", stdout=out)
        assert User.objects.get().username == "ada"
        with pytest.raises(CommandError, match="not empty"):
            call_command("restore", str(path), "--yes")

    def test_other_field_keys_are_told(self, path, monkeypatch):
        fill_server()
        call_command("backup", str(path), stdout=StringIO())
        monkeypatch.setattr(restore_module, "_is_readable", lambda _text: False)
        errors = StringIO()
        call_command("restore", str(path), "--yes", "--replace", stdout=StringIO(), stderr=errors)
        assert "FIELD_KEYS" in errors.getvalue()
