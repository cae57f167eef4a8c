"""Bots and channels by the API: for admin keys only, with tokens going in and never out."""

from __future__ import annotations

import json

import pytest

from apps.core.documents import AuditEntry
from apps.keys.documents import Scope
from apps.keys.services import create_key
from apps.telegram_cache.clients.errors import TokenRefused
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services import pool
from tests.downloads.conftest import Api
from tests.telegram_cache.conftest import CHANNEL_ID, store, telegram  # noqa: F401 - fixtures


@pytest.fixture
def admin(api, store):  # noqa: F811 - the fixture
    return Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key)


class TestWhoMay:
    @pytest.mark.parametrize("path", ["admin/bots", "admin/channels"])
    def test_only_a_key_with_the_admin_scope(self, api, admin, client, path):
        assert api.get(path).json()["error"] == "scope_missing"
        assert api.post(path, {"token": "1:abc"}).json()["error"] == "scope_missing"
        assert client.get(f"/api/v1/{path}").json()["error"] == "key_missing"
        assert admin.get(path).status_code == 200


class TestBots:
    def test_a_bot_is_added_listed_stopped_and_used_again_and_each_change_is_in_the_audit_log(self, admin, store):  # noqa: F811
        bot = store.telegram.add_bot(222222, username="second_bot")
        store.telegram.make_admin(bot, store.channel)
        answers = [admin.post("admin/bots", {"token": bot.token})]
        assert answers[0].json()["bot"]["username"] == "second_bot"
        answers.append(admin.post("admin/bots/222222/disable", {}))
        assert roster().bot("222222") is None
        answers.append(admin.post("admin/bots/222222/enable", {}))
        assert roster().bot("222222") is not None
        answers.append(admin.get("admin/bots"))
        assert [bot["bot_id"] for bot in answers[-1].json()["bots"]] == ["111111", "222222"]
        secret = bot.token.partition(":")[2]
        assert all(secret not in answer.content.decode() for answer in answers)
        entries = list(AuditEntry.objects.order_by("at"))
        assert {entry.action for entry in entries} == {"bot.add", "bot.disable", "bot.enable"}
        assert all(entry.actor == f"key {admin.prefix}" for entry in entries)
        assert all(secret not in str(entry.to_mongo()) for entry in entries)

    def test_a_token_is_replaced_and_one_in_the_address_is_refused(self, admin, store):  # noqa: F811
        fresh = store.telegram.reissue_token(store.bot)
        refused = admin.client.post(f"/api/v1/admin/bots?token={fresh.token}")
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_parameter")
        assert fresh.token not in refused.content.decode()
        assert admin.post("admin/bots/111111/token", {"token": fresh.token}).status_code == 200
        assert roster().bot("111111").token == fresh.token

    def test_a_wrong_token_says_what_to_do_and_is_not_repeated(self, admin):
        answer = admin.post("admin/bots", {"token": "999:" + "x" * 35})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
        assert "BotFather" in answer.json()["message"]
        assert "xxx" not in answer.content.decode()

    def test_an_unknown_bot_is_not_found(self, admin):
        assert admin.post("admin/bots/5/disable", {}).json()["error"] == "not_found"

    def test_what_needs_attention_is_listed_until_a_check_finds_it_well(self, admin):
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("111111"))
        assert [alert["id"] for alert in admin.get("admin/bots").json()["alerts"]] == ["111111"]
        assert admin.post("admin/bots/check", {}).json()["ok"] is True
        assert admin.get("admin/bots").json()["alerts"] == []


class TestChannels:
    def test_a_channel_is_added_chosen_changed_and_stopped(self, admin, store):  # noqa: F811
        store.telegram.make_admin(store.bot, store.telegram.add_channel(-1002, title="Second"))
        added = admin.post("admin/channels", {"channel": "-1002", "make_default": False}).json()
        assert (added["channel"]["is_default"], added["findings"][0]["ok"]) == (False, True)
        assert admin.post("admin/channels/-1002/default", {}).json()["channel"]["is_default"] is True
        assert roster().default_channel.channel_id == "-1002"
        changed = admin.post("admin/channels/-1002/settings", {"scratch_chat": str(CHANNEL_ID), "playable": True})
        assert changed.json()["channel"]["scratch_chat_id"] == str(CHANNEL_ID)
        assert changed.json()["channel"]["playable"] is True
        cleared = admin.post("admin/channels/-1002/settings", {"scratch_chat": "none"}).json()["channel"]
        assert (cleared["scratch_chat_id"], cleared["playable"]) == ("", True)
        rate = admin.post("admin/channels/-1002/settings", {"messages_per_min": 5}).json()["channel"]
        assert (rate["messages_per_min"], rate["playable"]) == (5, True)
        assert admin.post("admin/channels/-1002/disable", {}).json()["channel"]["state"] == "disabled"
        assert admin.post("admin/channels/-1002/default", {}).json()["error"] == "invalid_parameter"
        assert admin.post("admin/channels/-1002/enable", {}).json()["channel"]["state"] == "active"
        assert len(json.loads(admin.get("admin/channels").content)["channels"]) == 2

    def test_a_channel_is_named_as_on_the_page_of_the_admin(self, admin, store):  # noqa: F811
        store.telegram.channels[CHANNEL_ID].username = "nonesuch"
        store.telegram.make_admin(store.bot, store.telegram.add_channel(-1001234567891, title="Second"))
        link = "https://t.me/c/1234567891/5?single"
        assert admin.post("admin/channels", {"channel": link}).json()["channel"]["channel_id"] == "-1001234567891"
        for chat in ("t.me/c/1234567890/7", "@nonesuch"):
            changed = admin.post("admin/channels/-1001234567891/settings", {"scratch_chat": chat}).json()
            assert changed["channel"]["scratch_chat_id"] == str(CHANNEL_ID)
        for path, field in (("admin/channels", "channel"), ("admin/channels/-1001234567891/settings", "scratch_chat")):
            for wrong in ("https://example.com/c/1/5", "none of these"):
                answer = admin.post(path, {field: wrong})
                assert (answer.status_code, answer.json()["parameter"]) == (400, field)
                assert "the link of one of its messages" in answer.json()["message"]

    def test_a_channel_where_no_bot_may_post_is_refused_with_what_to_fix(self, admin, store):  # noqa: F811
        store.telegram.add_channel(-1002)
        answer = admin.post("admin/channels", {"channel": "-1002"})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
        assert "administrator" in answer.json()["message"]
