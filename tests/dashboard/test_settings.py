"""The settings and system pages, and amounts as people write them."""

from __future__ import annotations

import logging
import re

import pytest
from django import forms
from django.test import Client
from pydantic import SecretStr

from apps.core.documents import AuditEntry, StoredTunable
from apps.core.error_log import recent_errors
from apps.core.tunables import dialects, forget_tunables, hot_max_bytes, link_ttl_s, set_tunable, stored_tunables
from apps.dashboard.amounts import AmountField, amount_text
from apps.dashboard.views import settings as settings_page
from apps.keys.services import create_key
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _defaults(server):
    forget_tunables()
    yield
    StoredTunable.objects.delete()
    forget_tunables()


class TestSettings:
    def test_an_owner_changes_some_with_units(self, owner):
        answer = owner.post("/admin/settings", {"link_ttl_s": "2 h", "hot_max_bytes": "1.5 GB"}, follow=True)
        assert b"Changed: Life of links, Size of the hot store." in answer.content
        assert (link_ttl_s(), hot_max_bytes()) == (7200, 3 * 1024**3 // 2)
        page = owner.get("/admin/settings").content.decode()
        assert 'value="2 h"' in page
        assert "6 h → 2 h" in page
        assert "20 GB → 1.5 GB" in page
        assert "<s>6 h</s> → 2 h" in owner.get("/admin/audit").content.decode()
        owner.post("/admin/settings", {"link_ttl_s": ""})
        assert link_ttl_s() == 21600

    def test_what_somebody_else_set_meanwhile_stays_and_the_same_setting_is_asked_about(self, owner):
        def shown():
            form = owner.get("/admin/settings").context["form"]
            return {name: form[name].value() or "" for name in form.fields}

        mine, theirs = shown(), shown()
        owner.post("/admin/settings", {**theirs, "link_ttl_s": "2 h", "dialect_song": "1"})
        asked = owner.post("/admin/settings", {**mine, "link_ttl_s": "3 h", "hot_max_bytes": "2 GB"})
        assert (asked.status_code, set(asked.context["form"].errors)) == (422, {"link_ttl_s"})
        assert link_ttl_s() == 7200
        again = {name: asked.context["form"][name].value() or "" for name in mine}
        owner.post("/admin/settings", again)
        assert (link_ttl_s(), hot_max_bytes(), dialects["song"]()) == (10_800, 2 * 1024**3, 1)

    def test_what_somebody_else_sets_while_it_is_saved_is_not_overwritten(self, owner, monkeypatch):
        def read_before_the_other() -> dict[str, int]:
            stored = stored_tunables()
            set_tunable("link_ttl_s", 7200, actor="sam")
            return stored

        seen = owner.get("/admin/settings").context["form"]["seen"].value()
        monkeypatch.setattr(settings_page, "stored_tunables", read_before_the_other)
        wanted = {"link_ttl_s": "3 h", "hot_max_bytes": "2 GB", "seen": seen}
        asked = owner.post("/admin/settings", wanted)
        assert (asked.status_code, set(asked.context["form"].errors)) == (422, {"link_ttl_s"})
        assert b"Changed: Size of the hot store." in asked.content
        assert (link_ttl_s(), hot_max_bytes()) == (7200, 2 * 1024**3)
        monkeypatch.undo()
        asked = owner.post("/admin/settings", {**wanted, "seen": asked.context["form"]["seen"].value()})
        assert (asked.status_code, b"Somebody else changed this meanwhile, to" in asked.content) == (422, True)
        owner.post("/admin/settings", {**wanted, "seen": asked.context["form"]["seen"].value()})
        assert link_ttl_s() == 10_800

    def test_a_dialect_is_switched_on_and_off_while_the_server_runs(self, owner):
        key = create_key(name="bot", owner="sam").key

        def ask():
            return Client().get("/song/dQw4w9WgXcQ", {"api": key}).status_code

        assert ask() == 404
        answer = owner.post("/admin/settings", {"dialect_song": "1"}, follow=True)
        assert b"Changed: song (dialect)." in answer.content
        assert "off → on" in answer.content.decode()
        assert (ask(), dialects["track"]()) == (200, 0)
        owner.post("/admin/settings", {"dialect_song": "0"})
        assert ask() == 404

    @pytest.mark.parametrize(
        ("text", "words"), [("1 s", "from 60 to"), ("soon", "Write a number"), ("5 GB", "one of s")]
    )
    def test_a_problem_stands_beside_its_field_and_nothing_is_stored(self, owner, text, words):
        answer = owner.post("/admin/settings", {"link_ttl_s": text, "limit_per_hour": "5"})
        assert answer.status_code == 422
        assert words in str(answer.context["form"].errors["link_ttl_s"])
        assert AuditEntry.objects(action="setting.change").count() == 0

    def test_others_only_look(self, operator):
        page = operator.get("/admin/settings").content
        assert b"Only owners change settings." in page
        assert b"Save" not in page
        assert operator.post("/admin/settings", {"link_ttl_s": "2 h"}).status_code == 403
        assert link_ttl_s() == 21600


class TestSystem:
    def test_shows_versions_settings_without_secrets_and_errors(self, viewer, settings):
        logging.getLogger("tests.system").error("the disk is full")
        wait_until(recent_errors)
        page = viewer.get("/admin/system").content.decode()
        for text in ("MongoDB", "Django", "HOT_MAX_BYTES", "20 GB", "6 h", "the disk is full"):
            assert text in page
        assert re.search(r"(now|\d s ago)</time>", page)
        env = settings.ENV
        for secret in (env.secret_key.get_secret_value(), env.redis_url.get_secret_value(), *env.field_keys):
            assert secret not in page

    def test_no_setting_that_may_hold_a_secret_is_shown(self, viewer, settings):
        canary = "canary-" + "x" * 40
        names = [
            name for name in type(settings.ENV).model_fields if re.search("key|token|secret|uri|redis_url|opti", name)
        ]
        assert {"link_keys", "field_keys", "telegram_bot_tokens", "ytdlp_options"} <= set(names)
        planted = {name: _as(getattr(settings.ENV, name), canary) for name in names}
        settings.ENV = settings.ENV.model_copy(update=planted)
        assert canary not in viewer.get("/admin/system").content.decode()
        assert canary not in repr(settings.ENV)


def _as(value: object, text: str) -> object:
    """The text in the shape of a setting's value."""
    if isinstance(value, SecretStr):
        return SecretStr(text)
    return {"cookiefile": text} if isinstance(value, dict) else (text,)


class TestAmounts:
    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [(21600, "s", "6 h"), (61, "s", "61 s"), (0, "files", "0"), (20 * 1024**3, "bytes", "20 GB")],
    )  # fmt: skip
    def test_the_text_means_the_value(self, value, unit, text):
        assert amount_text(value, unit) == text
        assert AmountField(unit=unit).clean(text) == value

    @pytest.mark.parametrize("text", ["1 GB", "-1", "one", "1e9", "9" * 20])
    def test_nonsense_is_refused(self, text):
        with pytest.raises(forms.ValidationError):
            AmountField(unit="s").clean(text)
