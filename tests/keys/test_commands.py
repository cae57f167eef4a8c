from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pymongo.errors
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.core.documents import AuditEntry
from apps.core.errors import KeyDisabled
from apps.keys.authentication import authenticate
from apps.keys.documents import ApiKey
from apps.keys.services import check_password

MANAGE = [sys.executable, "manage.py"]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("mongo")
class TestKeyCommands:
    def test_a_made_key_works_is_listed_without_its_secret_and_stops_when_revoked(self):
        options = ["--limit-per-hour", "5", "--scope", "info", "media", "--expires-days", "2"]
        made = json.loads(run("create_key", "--name", "bot", "--json", *options))
        grant = authenticate(made["key"])
        assert (grant.prefix, grant.limit_per_hour, grant.scopes) == (made["prefix"], 5, {"info", "media"})
        listed = json.loads(run("list_keys", "--json"))
        assert [(row["prefix"], row["name"], row["active"]) for row in listed] == [(made["prefix"], "bot", True)]
        assert made["key"][12:] not in run("list_keys")
        assert run("revoke_key", made["prefix"]) == f"Revoked {made['prefix']}.\n"
        assert run("revoke_key", made["prefix"]) == f"Revoked {made['prefix']}.\n"
        with pytest.raises(KeyDisabled):
            authenticate(made["key"])
        assert "no" in run("list_keys").splitlines()[1].split()

    def test_what_they_make_and_revoke_is_on_the_audit_log_without_secrets(self):
        made = json.loads(run("create_key", "--name", "bot", "--json"))
        run("revoke_key", made["prefix"])
        run("create_admin", "--username", "ada", "--role", "viewer", "--json")
        entries = AuditEntry.objects.order_by("id")
        assert [(entry.action, entry.target_id) for entry in entries] == [
            ("key.create", made["prefix"]), ("key.revoke", made["prefix"]), ("user.create", "ada"),
        ]  # fmt: skip
        assert [entry.after for entry in entries] == [{"name": "bot"}, {}, {"role": "viewer"}]

    def test_prints_only_the_key_by_default(self):
        assert authenticate(run("create_key", "--name", "bot").strip()).scopes == {"info", "media", "search"}

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("create_key", "--name", ""), "1 to 100 characters"),
            (("create_key", "--name", "x", "--limit-per-hour", "0"), "limit_per_hour: a number from 1 to"),
            (("create_key", "--name", "x", "--expires-days", "nan"), "--expires-days: invalid"),
            (("revoke_key", "nosuchke"), "no key with the prefix"),
            (("create_admin", "--username", "a b"), "username"),
        ],
    )
    def test_says_in_one_line_what_is_wrong(self, arguments, problem):
        with pytest.raises(CommandError, match=problem) as failed:
            run(*arguments)
        assert "\n" not in str(failed.value)


@pytest.mark.usefixtures("mongo")
class TestWhatIsShownOnce:
    def test_a_key_that_could_not_be_put_on_record_is_not_left_behind(self, monkeypatch):
        def fail(**_fields):
            raise pymongo.errors.AutoReconnect

        monkeypatch.setattr("apps.core.audit.record", fail)
        out = io.StringIO()
        with pytest.raises(CommandError, match="MongoDB"):
            call_command("create_key", "--name", "bot", stdout=out)
        assert (out.getvalue(), ApiKey.objects.count()) == ("", 0)

    def test_a_key_that_nobody_could_read_is_not_left_behind(self):
        done = shown_to_nobody("create_key", "--name", "bot")
        assert re.fullmatch(
            r"CommandError: It could not be shown \(Broken pipe\): the key \w{8} was deleted again. Make another\b.*\s",
            done.stderr,
        )
        assert (done.returncode, ApiKey.objects.count()) == (1, 0)
        assert [entry.action for entry in AuditEntry.objects.order_by("id")] == ["key.create", "key.delete"]

    def test_other_secrets_that_nobody_could_read_are_one_line_that_says_what_to_do(self):
        key = json.loads(run("create_key", "--name", "bot", "--json"))["prefix"]
        run("create_admin", "--username", "eve")
        for arguments, advice in (
            (("create_admin", "--username", "ada"), "`manage.py reset_admin` makes another password."),
            (("reset_admin", "--username", "eve", "--json"), "Run this again."),
            (("rotate_key", key), "Rotate again when nobody uses it any more: that ends it at once."),
            (("set_webhook", key, "--url", "https://hooks.example.com/x"), "set the address again."),
        ):
            done = shown_to_nobody(*arguments)
            assert done.returncode == 1
            assert done.stderr.startswith("CommandError: It could not be shown (Broken pipe): ")
            assert done.stderr.endswith(advice + "\n")


def shown_to_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose output goes to a reader that has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as gone:
        return subprocess.run([*MANAGE, *arguments], stdout=gone, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.usefixtures("mongo")
class TestCreateAdmin:
    def test_prints_a_password_that_works_once(self):
        made = json.loads(run("create_admin", "--username", "ada", "--json"))
        user = check_password("ada", made["password"])
        assert user is not None
        assert user.role == "owner"
        with pytest.raises(CommandError, match="already"):
            run("create_admin", "--username", "ada")

    def test_takes_the_password_from_standard_input_and_does_not_print_it(self, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("a long enough secret\n"))
        assert "secret" not in run("create_admin", "--username", "bob", "--password-stdin")
        assert check_password("bob", "a long enough secret") is not None

    def test_refuses_a_short_password(self, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
        with pytest.raises(CommandError, match="12 characters"):
            run("create_admin", "--username", "bob", "--password-stdin")


class TestWithoutMongodb:
    def test_one_clear_line_and_a_non_zero_exit(self):
        environment = {**os.environ, "MONGO_URI": "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=300"}
        done = subprocess.run(
            [*MANAGE, "create_key", "--name", "x"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.strip().splitlines() == [done.stderr.strip()]
        assert "MongoDB" in done.stderr
