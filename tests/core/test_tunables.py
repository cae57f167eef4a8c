"""Settings that change while everything runs: checked, kept, logged, and soon known to every process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.core import tunables
from apps.core.documents import AuditEntry, StoredTunable
from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.core.tunables import TUNABLES, Group, dialects, forget_tunables, link_ttl_s, set_tunable
from ytserver.env import BASE_DIR

DOC = BASE_DIR / "docs" / "settings.md"


@pytest.fixture
def stored(mongo):
    forget_tunables()
    yield
    StoredTunable.objects.delete()
    forget_tunables()


class TestSetting:
    def test_a_value_holds_at_once_here_and_is_in_the_audit_log(self, stored):
        assert link_ttl_s() == 6 * 3600
        assert set_tunable("link_ttl_s", 600, actor="sam", address="10.0.0.9")
        assert link_ttl_s() == 600
        entry = AuditEntry.objects.get()
        assert (entry.action, entry.target_id, entry.actor) == ("setting.change", "link_ttl_s", "sam")
        assert (entry.before, entry.after) == ({"value": 21600}, {"value": 600})

    def test_none_goes_back_to_the_default_and_nothing_new_is_no_change(self, stored):
        assert not set_tunable("link_ttl_s", None, actor="sam")
        set_tunable("link_ttl_s", 600, actor="sam")
        assert not set_tunable("link_ttl_s", 600, actor="sam")
        assert set_tunable("link_ttl_s", None, actor="sam")
        assert link_ttl_s() == 6 * 3600
        assert AuditEntry.objects.count() == 2

    @pytest.mark.parametrize("value", [0, 59, 8 * 86400])
    def test_what_is_out_of_bounds_is_refused(self, stored, value):
        with pytest.raises(InvalidParameter, match="from 60 to 604,800"):
            set_tunable("link_ttl_s", value, actor="sam")
        assert link_ttl_s() == 6 * 3600

    def test_of_many_who_saw_the_same_one_changes_it(self, stored):
        for seen in ({}, {"link_ttl_s": link_ttl_s.default()}, {"link_ttl_s": None}):
            StoredTunable.objects.delete()
            if seen.get("link_ttl_s"):
                set_tunable("link_ttl_s", seen["link_ttl_s"], actor="sam")
            AuditEntry.objects.delete()

            def change(value: int, seen: dict[str, int | None] = seen) -> bool:
                try:
                    return set_tunable("link_ttl_s", value, seen=seen, actor="sam")
                except Conflict:
                    return False

            with ThreadPoolExecutor(8) as pool:
                outcomes = list(pool.map(change, range(600, 608)))
            assert sum(outcomes) == 1
            assert StoredTunable.objects.get().value == 600 + outcomes.index(True)
            assert AuditEntry.objects.count() == 1

    def test_an_unknown_name_is_refused(self, stored):
        with pytest.raises(NotFound):
            set_tunable("debug", 1, actor="sam")

    def test_every_default_is_within_its_bounds(self, stored):
        for item in TUNABLES.values():
            item.check(item.default())


def test_the_docs_name_each_with_its_default():
    rows = re.findall(
        r"^\| ([^|`]+) \| ([^|]+) \|", DOC.read_text().partition("## While the server runs")[2], re.MULTILINE
    )
    documented = {label: default.strip("` ").replace(",", "") for label, default in rows[1:]}
    plain = [item for item in TUNABLES.values() if item.group != Group.DIALECTS]
    expected = {item.label: item.env_name or str(item.default()) for item in plain}
    assert documented == expected | {f"Dialects {', '.join(dialects)}": "DIALECTS"}


def test_another_process_knows_it_soon(stored):
    code = (
        "import django; django.setup()\n"
        "import time\n"
        "from apps.core.tunables import link_ttl_s\n"
        "assert link_ttl_s() == 21600\n"
        "print('ready', flush=True)\n"
        "while link_ttl_s() != 777: time.sleep(0.01)\n"
        "print('seen', flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=BASE_DIR, env=os.environ.copy(), stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        set_tunable("link_ttl_s", 777, actor="sam")
        assert other.stdout.readline() == "seen\n"
        other.wait(timeout=90)


def test_while_mongodb_is_away_the_last_value_holds(stored, monkeypatch):
    set_tunable("link_ttl_s", 600, actor="sam")

    def fail():
        raise tunables.PyMongoError("away")

    monkeypatch.setattr(tunables, "stored_tunables", fail)
    forget_tunables()
    assert link_ttl_s() == 600
