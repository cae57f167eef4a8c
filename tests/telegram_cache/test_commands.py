"""The commands as an operator uses them."""

from __future__ import annotations

import io
import json
import re

import pytest
from django.core.management import CommandError, call_command

from apps.core.documents import AuditEntry
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.clients.errors import TokenRefused
from apps.telegram_cache.documents import Asset, AssetState, PartState
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import all_bots, cache_totals, find_assets, find_channel
from apps.telegram_cache.services import pool, touch_asset, upload_asset
from tests.telegram_cache.conftest import CHANNEL_ID, MIB


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class TestTelegram:
    def test_a_token_comes_from_standard_input_and_is_never_shown(self, mongo, telegram, monkeypatch):
        bot = telegram.add_bot(123456, username="songs_bot")
        telegram.make_admin(bot, telegram.add_channel(CHANNEL_ID, title="Songs"))
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{bot.token}\n"))
        shown = run("telegram", "add-bot", "--token-stdin")
        shown += run("telegram", "add-channel", str(CHANNEL_ID)) + run("telegram", "check") + run("telegram", "list")
        assert "@songs_bot" in shown
        assert "Songs" in shown
        assert bot.token not in shown
        listed = json.loads(run("telegram", "list", "--json"))
        assert [bot["bot_id"] for bot in listed["bots"]] == ["123456"]
        assert listed["channels"][0]["is_default"] is True
        assert bot.token not in json.dumps(listed)

    def test_a_wrong_token_is_one_clear_line(self, mongo, telegram, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("5:" + "x" * 35))
        with pytest.raises(CommandError, match="BotFather"):
            run("telegram", "add-bot", "--token-stdin")
        assert all_bots() == []

    def test_check_says_what_to_fix_and_fails(self, store):
        store.channel.admins[store.bot.bot_id]["can_post_messages"] = False
        with pytest.raises(CommandError, match="fixed"):
            run("telegram", "check")

    def test_check_with_nothing_there_says_where_to_begin(self, mongo, telegram):
        with pytest.raises(CommandError, match="add-bot"):
            run("telegram", "check")

    def test_messages_a_minute_are_a_choice_within_bounds(self, store):
        assert "5 messages" in run("telegram", "set-rate", str(CHANNEL_ID), "5")
        assert find_channel(str(CHANNEL_ID)).messages_per_min == 5
        with pytest.raises(CommandError, match="1800"):
            run("telegram", "set-rate", str(CHANNEL_ID), "100000")

    def test_changes_are_in_the_audit_log_under_the_name_of_the_shells_user(self, store, monkeypatch):
        monkeypatch.setattr("getpass.getuser", lambda: "anna")
        bot_id, channel_id = str(store.bot.bot_id), str(CHANNEL_ID)
        run("telegram", "set-rate", channel_id, "5")
        run("telegram", "disable-bot", bot_id)
        run("telegram", "enable-bot", bot_id)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{store.bot.token}\n"))
        run("telegram", "replace-token", bot_id, "--token-stdin")
        run("telegram", "disable-channel", channel_id)
        entries = list(AuditEntry.objects.order_by("at", "id"))
        assert [(entry.action, entry.target_id) for entry in entries] == [
            ("channel.settings", channel_id), ("bot.disable", bot_id), ("bot.enable", bot_id), ("bot.token", bot_id),
            ("channel.disable", channel_id),
        ]  # fmt: skip
        assert {entry.actor for entry in entries} == {"anna (command line)"}
        assert [entry.after["state"] for entry in entries[1:3]] == ["disabled", "active"]
        assert not any(store.bot.token in str(entry.to_mongo()) for entry in entries)

    def test_uploads_that_wait_for_their_turn_are_told_with_a_time(self, store, make_asset, monkeypatch):
        made = make_asset(MIB)
        store.telegram.rate_limit("sendDocument", 600)
        assert re.search(r"waits until \d\d:\d\d:\d\d UTC: every bot", run("cache", "repair", made.asset_id))
        assert re.search(r"waiting  1 uploads wait .* until \d\d:", run("telegram", "list"))
        assert json.loads(run("telegram", "list", "--json"))["waiting_uploads"]["count"] == 1

    def test_disabling_takes_known_ids_only(self, store):
        run("telegram", "disable-bot", str(store.bot.bot_id))
        run("telegram", "disable-channel", str(CHANNEL_ID))
        with pytest.raises(CommandError, match="no bot"):
            run("telegram", "disable-bot", "5")


class TestCache:
    def test_list_and_totals(self, store, make_asset):
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        make_asset(MIB, seed=2)
        for _ in range(3):
            touch_asset(made.asset_id)
        assert made.asset_id in run("cache", "list")
        assert "leftover messages" in run("cache", "list")
        assert "leftover messages" not in run("cache", "list", "--no-totals")
        rows = [json.loads(line) for line in run("cache", "list", "--state", "cached", "--json").splitlines()]
        assert [(row["asset_id"], row["access_count"]) for row in rows] == [(made.asset_id, 3)]
        totals = cache_totals()
        assert (totals.count, totals.size_bytes) == (2, 2 * MIB)
        audio = next(kind for kind in totals.by_kind if kind.kind == "audio")
        assert (audio.count, audio.in_telegram) == (2, 1)
        assert [(row.state, row.kind, row.count) for row in totals.states] == [
            ("cached", "audio", 1),
            ("ready", "audio", 1),
        ]
        assert [used.asset_id for used in totals.most_used] == [made.asset_id]
        assert totals.most_used[0].last_accessed_at is not None
        assert set(find_assets([made.asset_id, "0" * 24])) == {made.asset_id}

    def test_totals_of_an_empty_cache(self, mongo):
        totals = cache_totals()
        assert (totals.count, totals.size_bytes, totals.orphans, totals.most_used) == (0, 0, 0, ())
        assert [kind.kind for kind in totals.by_kind] == ["video", "audio"]

    def test_verify_finds_a_bad_part_and_repair_stores_it_again(self, store, make_asset, part_bytes):
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        upload_asset(made.asset_id)
        assert "2 parts good, ok" in run("cache", "verify")
        part = Asset.objects(id=made.asset_id).get().parts[1]
        store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * MIB)
        with pytest.raises(CommandError, match="repair"):
            run("cache", "verify", made.asset_id)
        asset = Asset.objects(id=made.asset_id).get()
        assert [part.state for part in asset.parts] == [PartState.STORED, PartState.BAD]
        assert asset.state == AssetState.READY
        assert "cached" in run("cache", "repair")
        assert "2 parts good, ok" in run("cache", "verify")
        asset = Asset.objects(id=made.asset_id).get()
        assert [(orphan.message_id, orphan.reason) for orphan in asset.orphans] == [(part.message_id, "bad")]

    def test_a_bad_part_that_is_nowhere_is_told_as_one_to_fetch_anew(self, store, make_asset, hot_root):
        assert "nothing to verify" in run("cache", "verify")
        assert "nothing to repair" in run("cache", "repair")
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        run("cache", "evict", "--max-bytes", "0")
        part = Asset.objects(id=made.asset_id).get().parts[0]
        store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * MIB)
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("cache", "verify", stdout=out)
        assert "0 parts good, bad part 0\n" in out.getvalue()
        assert "is to be fetched anew: the file is not in the hot store" in run("cache", "repair")

    def test_telegram_away_changes_nothing_on_record(self, store, make_asset):
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        store.telegram.faults.add("getFile", status=502, times=10)
        with pytest.raises(CommandError):
            run("cache", "verify")
        assert Asset.objects(id=made.asset_id).get().is_in_telegram

    def test_evict_frees_what_is_safe(self, store, make_asset, hot_root):
        made = make_asset(MIB)
        upload_asset(made.asset_id)
        shown = run("cache", "evict", "--max-bytes", "0")
        assert "bytes freed, 0 bytes more to go" in shown
        assert "Removed 1 files" in shown
        assert HotStore(hot_root).open(made.asset_id, 1) is None
        make_asset(MIB, seed=2)
        with pytest.raises(CommandError, match="not in Telegram yet"):
            run("cache", "evict", "--max-bytes", "0")

    def test_what_changes_something_is_in_the_audit_log(self, store, make_asset, part_bytes, tmp_path, monkeypatch):
        monkeypatch.setattr("getpass.getuser", lambda: "anna")
        part_bytes(MIB)
        made = make_asset(2 * MIB)
        run("cache", "repair", made.asset_id)
        store.add_bot(222222)
        run("telegram", "rekey", "222222")
        part = Asset.objects(id=made.asset_id).get().parts[1]
        store.telegram.file_of(part.file_unique_id).write_bytes(b"y" * MIB)
        with pytest.raises(CommandError, match="repair"):
            run("cache", "verify")
        run("cache", "repair")
        run("cache", "evict", "--max-bytes", "0")
        run("cache", "export", str(tmp_path / "all"))
        run("cache", "import", str(tmp_path / "all"))
        (tmp_path / "links").write_text("dQw4w9WgXcQ")
        run("cache", "warm", str(tmp_path / "links"), "--later", "tonight")
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("222222"))
        run("telegram", "check")
        run("cache", "list")
        run("telegram", "check")
        entries = list(AuditEntry.objects.order_by("at", "id"))
        assert [(entry.action, entry.target_id) for entry in entries] == [
            ("asset.repair", made.asset_id), ("bot.rekey", "222222"), ("asset.verify", made.asset_id),
            ("asset.repair", made.asset_id), ("cache.evict", "all"), ("cache.import", "all"), ("cache.warm", "all"),
            ("bot.check", "222222"),
        ]  # fmt: skip
        assert {entry.actor for entry in entries} == {"anna (command line)"}
        assert entries[1].after == {"parts": 2}
        assert entries[2].after == {"bad_parts": [1]}

    def test_an_unknown_asset_is_one_clear_line(self, mongo, telegram):
        with pytest.raises(CommandError, match="no asset"):
            run("cache", "verify", "0" * 24)
