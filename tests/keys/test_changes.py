from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pymongo.errors
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.core.documents import AuditEntry
from apps.core.errors import Conflict, InvalidParameter, IpNotAllowed, KeyDisabled, KeyInvalid, NotFound
from apps.keys.authentication import authenticate, forget_cached_keys, grant_for_prefix
from apps.keys.changes import (
    add_user,
    delete_key,
    delete_user,
    known_key,
    rotate_key,
    switch_key,
    update_key,
    update_user,
)
from apps.keys.documents import ApiKey, Role, User
from apps.keys.selectors import has_admins
from apps.keys.services import create_key, create_user, revoke_key

pytestmark = pytest.mark.usefixtures("mongo")
WHO = {"actor": "tester", "address": "192.0.2.9"}


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


class TestUpdateKey:
    def test_changes_what_is_named_at_once_and_says_so_in_the_audit_log(self):
        new = create_key(name="bot", limit_per_hour=5)
        update_key(new.document.prefix, {"limit_per_hour": 9, "labels": ["a", "b", "a"], "name": "bot"}, **WHO)
        grant = authenticate(new.key)
        assert (grant.limit_per_hour, grant.name) == (9, "bot")
        (entry,) = AuditEntry.objects(action="key.update")
        assert (entry.actor, entry.target_id, entry.address) == ("tester", new.document.prefix, "192.0.2.9")
        assert (entry.before, entry.after) == (
            {"limit_per_hour": 5, "labels": []},
            {"limit_per_hour": 9, "labels": ["a", "b"]},
        )
        assert {"a", "b", "bot"} <= set(known_key(new.document.prefix).words)

    def test_nothing_to_change_is_no_change(self):
        prefix = create_key(name="bot").document.prefix
        assert update_key(prefix, {}, **WHO).name == "bot"
        assert AuditEntry.objects.count() == 0

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", "x\x00"),
            ("owner", "a b"),
            ("labels", ["x" * 51]),
            ("labels", "x"),
            ("labels", [str(number) for number in range(21)]),
            ("scopes", []),
            ("scopes", ["everything"]),
            ("expires_at", datetime.now(UTC) - timedelta(seconds=1)),
            ("allowed_cidrs", ["nowhere"]),
            ("allowed_cidrs", ["10.0.0.0/8"] * 2 + [f"10.0.{n}.0/24" for n in range(50)]),
            ("bind_links", "yes"),
            ("limit_per_hour", 0),
            ("limit_per_hour", True),
            ("limit_per_day", -1),
            ("bytes_per_day", 10**16),
            ("concurrent_streams", "3"),
            ("secret_sha256", "0" * 64),
            ("prefix", "aaaaaaaa"),
            ("active", True),
        ],
    )
    def test_refuses_what_a_field_may_not_be_by_its_name(self, field, value):
        prefix = create_key(name="bot").document.prefix
        before = ApiKey.objects.get().to_mongo()
        with pytest.raises(InvalidParameter, match=field):
            update_key(prefix, {field: value}, **WHO)
        assert ApiKey.objects.get().to_mongo() == before

    def test_of_many_who_saw_the_same_one_changes_it(self):
        prefix = create_key(name="bot").document.prefix
        seen = {"limit_per_day": None, "labels": []}

        def change(number: int) -> bool:
            try:
                update_key(prefix, {"limit_per_day": number, "labels": [str(number)]}, seen=seen, **WHO)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(change, range(1, 9)))
        assert sum(outcomes) == 1
        assert known_key(prefix).limit_per_day == outcomes.index(True) + 1
        update_key(prefix, {"name": "car"}, seen={"name": "bot"}, **WHO)
        with pytest.raises(Conflict):
            update_key(prefix, {"name": "cow"}, seen={"name": "bot"}, **WHO)

    def test_an_unknown_key_is_not_found(self):
        with pytest.raises(NotFound):
            update_key("nosuchke", {"name": "x"}, **WHO)
        with pytest.raises(NotFound):
            delete_key("nosuchke", **WHO)
        with pytest.raises(NotFound):
            rotate_key("nosuchke", **WHO)

    def test_a_deleted_key_and_its_links_stop(self):
        new = create_key(name="bot")
        assert authenticate(new.key)
        delete_key(new.document.prefix, **WHO)
        with pytest.raises(KeyInvalid):
            authenticate(new.key)
        with pytest.raises(KeyInvalid):
            grant_for_prefix(new.document.prefix)


class TestRotate:
    def test_both_secrets_work_in_the_grace_time_and_only_the_new_one_after_it(self):
        old = create_key(name="bot")
        new = rotate_key(old.document.prefix, grace_s=3600, **WHO)
        assert new.key != old.key
        assert authenticate(old.key) == authenticate(new.key)
        ApiKey.objects.update(old_secret_until=datetime.now(UTC))
        forget_cached_keys()
        assert authenticate(new.key)
        with pytest.raises(KeyInvalid):
            authenticate(old.key)

    def test_without_grace_time_the_old_secret_stops_at_once(self):
        old = create_key(name="bot")
        rotate_key(old.document.prefix, grace_s=0, **WHO)
        with pytest.raises(KeyInvalid):
            authenticate(old.key)

    def test_of_three_secrets_the_last_two_work(self):
        keys = [create_key(name="bot")]
        for _ in range(2):
            keys.append(rotate_key(keys[0].document.prefix, **WHO))
        assert authenticate(keys[2].key)
        assert authenticate(keys[1].key)
        with pytest.raises(KeyInvalid):
            authenticate(keys[0].key)

    def test_a_revoked_key_gets_no_new_secret(self):
        new = create_key(name="bot")
        revoke_key(new.document.prefix)
        with pytest.raises(Conflict):
            rotate_key(new.document.prefix, **WHO)

    def test_simultaneous_rotations_leave_two_secrets_that_work(self):
        prefix = create_key(name="bot").document.prefix
        made: list[str] = []
        threads = [threading.Thread(target=lambda: made.append(rotate_key(prefix, **WHO).key)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        works = []
        for key in made:
            try:
                works.append(authenticate(key))
            except KeyInvalid:
                continue
        assert len(works) == 2

    def test_no_secret_is_in_the_audit_log(self):
        new = rotate_key(create_key(name="bot").document.prefix, **WHO)
        secret = new.key.split("_", 2)[2]
        assert all(secret not in str(entry.to_mongo()) for entry in AuditEntry.objects)

    def test_a_secret_that_could_not_be_put_on_record_is_taken_back(self, monkeypatch):
        def fail(**_fields):
            raise pymongo.errors.AutoReconnect

        prefix = create_key(name="bot").document.prefix
        old = rotate_key(prefix, grace_s=3600, **WHO)
        for rotated in (prefix, create_key(name="never").document.prefix):
            before = ApiKey.objects.get(prefix=rotated)
            with monkeypatch.context() as patched:
                patched.setattr("apps.core.audit.record", fail)
                with pytest.raises(pymongo.errors.AutoReconnect):
                    rotate_key(before.prefix, grace_s=0, **WHO)
            assert ApiKey.objects.get(prefix=before.prefix).to_mongo() == before.to_mongo()
        assert authenticate(old.key)

    def test_the_grace_time_is_bounded(self):
        with pytest.raises(InvalidParameter):
            rotate_key(create_key(name="bot").document.prefix, grace_s=31 * 86_400, **WHO)


class TestNetworks:
    def test_a_key_is_good_only_from_its_networks(self):
        key = create_key(name="bot", allowed_cidrs=["192.0.2.77/24", "2001:db8::/32"]).key
        for address in ("192.0.2.1", "2001:db8::5", "::ffff:192.0.2.9"):
            assert authenticate(key, address)
        for address in ("192.0.3.1", "2001:db9::1", "", "unix:", "::ffff:192.0.3.9"):
            with pytest.raises(IpNotAllowed):
                authenticate(key, address)

    def test_a_wrong_secret_learns_nothing_about_networks(self):
        key = create_key(name="bot", allowed_cidrs=["192.0.2.0/24"]).key
        with pytest.raises(KeyInvalid):
            authenticate(f"{key[:-3]}xyz", "192.0.3.1")


class TestUsers:
    def test_a_key_starts_from_its_users_plan_and_follows_it(self):
        add_user("ada", {"limit_per_hour": 7, "bytes_per_day": 100, "concurrent_streams": 2}, **WHO)
        plain = create_key(name="plain", owner="ada")
        own = create_key(name="own", owner="ada", limit_per_hour=9, bytes_per_day=0)
        grant = authenticate(plain.key)
        assert (grant.limit_per_hour, grant.bytes_per_day, grant.concurrent_streams, grant.limit_per_day) == (
            7, 100, 2, None,
        )  # fmt: skip
        grant = authenticate(own.key)
        assert (grant.limit_per_hour, grant.bytes_per_day, grant.concurrent_streams) == (9, None, 2)
        update_user("ada", {"limit_per_hour": 8}, **WHO)
        assert (authenticate(plain.key).limit_per_hour, authenticate(own.key).limit_per_hour) == (8, 9)

    def test_a_key_of_nobody_has_the_default(self):
        assert authenticate(create_key(name="bot").key).limit_per_hour == 1000

    def test_switching_a_user_off_stops_their_keys(self):
        add_user("ada", {}, **WHO)
        key = create_key(name="bot", owner="ada").key
        assert authenticate(key)
        update_user("ada", {"active": False}, **WHO)
        with pytest.raises(KeyDisabled):
            authenticate(key)
        update_user("ada", {"active": True}, **WHO)
        assert authenticate(key)

    def test_an_owner_whom_nobody_heard_of_becomes_a_user_who_may_not_enter_the_admin(self):
        create_key(name="bot", owner="ada")
        assert User.objects.get(username="ada").role == Role.NONE.value
        assert not has_admins()

    def test_taken_names_and_users_with_keys_or_roles_are_refused(self):
        add_user("ada", {}, **WHO)
        with pytest.raises(Conflict):
            add_user("ada", {}, **WHO)
        prefix = create_key(name="bot", owner="ada").document.prefix
        with pytest.raises(Conflict, match="1 API keys"):
            delete_user("ada", **WHO)
        delete_key(prefix, **WHO)
        delete_user("ada", **WHO)
        with pytest.raises(NotFound):
            delete_user("ada", **WHO)
        create_user(username="boss", password="a long enough secret", role=Role.OWNER)
        with pytest.raises(Conflict, match="enter the admin"):
            delete_user("boss", **WHO)

    def test_role_and_password_are_no_fields_of_a_plan(self):
        add_user("ada", {}, **WHO)
        for field, value in (("role", "owner"), ("password_hash", "x"), ("session_version", 1), ("username", "bob")):
            with pytest.raises(InvalidParameter, match=field):
                update_user("ada", {field: value}, **WHO)

    def test_documents_of_older_versions_go_on_working(self):
        create_user(username="ada", password="a long enough secret", role=Role.OWNER)
        new = create_key(name="bot", owner="ada", limit_per_hour=4)
        User._get_collection().update_many({}, {"$unset": {"name": 1, "notes": 1}})
        ApiKey._get_collection().update_many(
            {}, {"$unset": dict.fromkeys(("labels", "allowed_cidrs", "bind_links", "old_secret_sha256"), 1)}
        )
        forget_cached_keys()
        assert authenticate(new.key).limit_per_hour == 4


class TestCommands:
    def test_create_update_rotate_and_delete(self):
        made = json.loads(
            run("create_key", "--name", "b", "--json", "--owner", "ada", "--limit-per-day", "9", "--allow", "::1/128")
        )
        prefix = made["prefix"]
        assert authenticate(made["key"], "::1").limit_per_day == 9
        run(
            "update_key", prefix, "--limit-per-day", "default", "--allow", "any", "--label", "x", "--off", "--name", "c"
        )
        (row,) = json.loads(run("list_keys", "--json"))
        assert (row["name"], row["limit_per_day"], row["labels"], row["active"]) == ("c", None, ["x"], False)
        run("update_key", prefix, "--on", "--concurrent-streams", "3", "--bind-links", "yes")
        rotated = json.loads(run("rotate_key", prefix, "--grace-s", "0", "--json"))
        grant = authenticate(rotated["key"])
        assert (grant.concurrent_streams, grant.bind_links) == (3, True)
        run("delete_key", prefix)
        with pytest.raises(KeyInvalid):
            authenticate(rotated["key"])
        with pytest.raises(CommandError, match="Say what to change"):
            run("update_key", prefix)
        assert {entry.actor for entry in AuditEntry.objects} == {"command line"}

    def test_users(self):
        run("users", "add", "ada", "--contact", "ada@example.org", "--limit-per-hour", "3")
        run("users", "update", "ada", "--off", "--notes", "late")
        (row,) = json.loads(run("users", "list", "--json"))
        assert (row["username"], row["active"], row["limit_per_hour"], row["keys"]) == ("ada", False, 3, 0)
        assert "ada  off  none  keys: 0  limit_per_hour 3" in run("users", "list")
        run("users", "delete", "ada")
        assert json.loads(run("users", "list", "--json")) == []
        with pytest.raises(CommandError, match="Say what to change"):
            run("users", "update", "ada")


class TestTransfer:
    def test_keys_work_on_another_server_after_export_and_import(self, monkeypatch):
        add_user("ada", {"limit_per_hour": 6, "notes": "line\nline"}, **WHO)
        first = create_key(name="one", owner="ada", labels=["x"], allowed_cidrs=["192.0.2.0/24"])
        rotated = rotate_key(first.document.prefix, **WHO)
        off = create_key(name="off", scopes=("info",))
        switch_key(off.document.prefix, active=False, **WHO)
        text = run("keys", "export")
        assert all(new.key.split("_", 2)[2] not in text for new in (first, rotated, off))
        before = [key.to_mongo() for key in ApiKey.objects.order_by("prefix").exclude("id")]
        ApiKey.objects.delete()
        User.objects.delete()
        forget_cached_keys()
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run("keys", "import") == "3 added, 0 replaced, 0 there already.\n"
        assert [key.to_mongo() for key in ApiKey.objects.order_by("prefix").exclude("id")] == before
        for key in (first.key, rotated.key):
            assert authenticate(key, "192.0.2.1").limit_per_hour == 6
        with pytest.raises(KeyDisabled):
            authenticate(off.key)

    def test_what_is_there_stays_unless_replacing_is_asked_for(self, monkeypatch):
        prefix = create_key(name="one", limit_per_hour=5).document.prefix
        text = run("keys", "export")
        update_key(prefix, {"limit_per_hour": 50, "name": "two"}, **WHO)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run("keys", "import") == "0 added, 0 replaced, 1 there already.\n"
        assert known_key(prefix).limit_per_hour == 50
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run("keys", "import", "--replace") == "0 added, 1 replaced, 0 there already.\n"
        assert (known_key(prefix).limit_per_hour, known_key(prefix).words[0]) == (5, "one")

    @pytest.mark.parametrize(
        "line",
        [
            "nonsense",
            "[]",
            '{"prefix": "aaaaaaaa"}',
            '{"user": "a b"}',
            '{"user": "ada", "limit_per_hour": 0}',
            '{"prefix": "aaaaaaaa", "secret_sha256": "short", "active": true, "name": "x", "scopes": ["info"]}',
            '{"prefix": "a/../aaa", "secret_sha256": "' + "0" * 64 + '", "active": true, "name": "x"}',
        ],
    )
    def test_a_wrong_line_is_named_and_gives_nobody_anything(self, monkeypatch, line):
        monkeypatch.setattr("sys.stdin", io.StringIO(f'{{"user": "bob", "role": "owner"}}\n{line}\n'))
        with pytest.raises(CommandError, match="line 2"):
            run("keys", "import")
        assert [user.role for user in User.objects] == ["none"]
        assert ApiKey.objects.count() == 0
