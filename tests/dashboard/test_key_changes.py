"""Changing keys, and users with their plans, in the admin."""

from __future__ import annotations

import re

import pytest

from apps.core.documents import AuditEntry
from apps.core.errors import KeyDisabled, KeyInvalid
from apps.keys.authentication import authenticate
from apps.keys.changes import known_key
from apps.keys.documents import ApiKey, Scope, User
from apps.keys.services import create_key, revoke_key
from tests.dashboard.conftest import PASSWORD

KEY = re.compile(r"yt_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}")


def values(form) -> dict:
    """What a browser would send back unchanged."""
    shown = {name: form[name].value() for name in form.fields}
    return {name: value for name, value in shown.items() if value not in (None, False)}


class TestKeys:
    def test_the_form_shows_the_key_and_changes_only_what_was_changed(self, operator):
        key = create_key(
            name="bot", owner="ada", labels=["a", "b"], bytes_per_day=5, allowed_cidrs=["::1/128"]
        ).document
        address = f"/admin/keys/{key.prefix}/edit"
        form = operator.get(address).context["form"]
        fields = values(form)
        assert (fields["labels"], fields["allowed_cidrs"], fields["bytes_per_day"]) == ("a, b", "::1/128", "5 B")
        operator.post(address, fields)
        assert AuditEntry.objects(action="key.update").count() == 0
        answer = operator.post(address, {**fields, "limit_per_day": "70", "labels": "c", "bind_links": "on"})
        assert answer["Location"] == f"/admin/keys/{key.prefix}"
        changed = known_key(key.prefix)
        assert (changed.limit_per_day, list(changed.labels), changed.bind_links, changed.bytes_per_day) == (
            70, ["c"], True, 5,
        )  # fmt: skip
        (entry,) = AuditEntry.objects(action="key.update")
        assert (entry.actor, set(entry.after)) == ("the-operator", {"limit_per_day", "labels", "bind_links"})

    @pytest.mark.parametrize("is_powerful", [False, True])
    def test_what_was_typed_stays_when_the_password_is_asked_for(self, owner, is_powerful):
        key = create_key(name="bot", scopes=[Scope.ADMIN] if is_powerful else [Scope.INFO]).document
        address = f"/admin/keys/{key.prefix}/edit"
        asked = owner.post(address, {"name": "cow", "scopes": ["admin"], "limit_per_day": "7"})["Location"]
        assert owner.post(asked, {"password": "wrong"}).status_code == 422
        back = owner.post(asked, {"password": PASSWORD})["Location"]
        fields = values(owner.get(back).context["form"])
        assert (fields["name"], fields["scopes"], fields["limit_per_day"]) == ("cow", ["admin"], "7")
        assert known_key(key.prefix).name == "bot"
        assert owner.post(back, fields)["Location"] == f"/admin/keys/{key.prefix}"
        assert (known_key(key.prefix).name, known_key(key.prefix).limit_per_day) == ("cow", 7)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("limit_per_hour", "0"),
            ("bytes_per_day", "9 parrots"),
            ("allowed_origins", "app"),
            ("allowed_cidrs", "here"),
            ("name", ""),
            ("labels", "x" * 51),
            ("owner", "a b"),
        ],
    )
    def test_a_mistake_is_said_beside_its_field(self, operator, field, value):
        prefix = create_key(name="bot").document.prefix
        address = f"/admin/keys/{prefix}/edit"
        answer = operator.post(address, {**values(operator.get(address).context["form"]), field: value})
        assert answer.status_code == 422
        assert answer.context["form"].errors[field]

    def test_limits_are_written_and_read_with_units_and_origins_as_a_list(self, operator):
        prefix = create_key(name="bot").document.prefix
        address = f"/admin/keys/{prefix}/edit"
        fields = values(operator.get(address).context["form"])
        typed = {
            "bytes_per_day": "20 GB",
            "longest_video_s": "2h",
            "allowed_origins": "https://a.example, https://b.example",
        }
        operator.post(address, {**fields, **typed})
        key = known_key(prefix)
        assert (key.bytes_per_day, key.longest_video_s) == (20 * 1024**3, 7200)
        assert list(key.allowed_origins) == ["https://a.example", "https://b.example"]
        page = operator.get(f"/admin/keys/{prefix}").content.decode()
        for words in ("20 GB", "2 h", "<code>https://b.example</code>"):
            assert words in page
        operator.post(address, {**values(operator.get(address).context["form"]), "bytes_per_day": "20480 MB"})
        assert AuditEntry.objects(action="key.update").count() == 1

    def test_what_somebody_else_changed_meanwhile_stays_and_the_same_field_is_asked_about(self, operator, owner):
        prefix = create_key(name="bot", limit_per_day=5, labels=["a"], bytes_per_day=7).document.prefix
        address = f"/admin/keys/{prefix}/edit"
        mine, theirs = (values(client.get(address).context["form"]) for client in (operator, owner))
        owner.post(address, {**theirs, "limit_per_day": "50", "bind_links": "on", "labels": "a, b"})
        typed = {**mine, "name": "my bot", "limit_per_day": "60"}
        asked = operator.post(address, typed)
        assert asked.status_code == 422
        assert "changed this meanwhile, to “50”" in str(asked.context["form"].errors["limit_per_day"])
        assert set(asked.context["form"].errors) == {"limit_per_day"}
        assert (known_key(prefix).name, known_key(prefix).limit_per_day) == ("bot", 50)
        shown = values(asked.context["form"])
        assert (shown["name"], shown["limit_per_day"]) == ("my bot", "60")
        operator.post(address, shown)
        key = known_key(prefix)
        assert (key.name, key.limit_per_day, key.bind_links, list(key.labels)) == ("my bot", 60, True, ["a", "b"])
        entries = AuditEntry.objects(action="key.update").order_by("at")
        assert [set(entry.after) for entry in entries] == [
            {"limit_per_day", "bind_links", "labels"}, {"name", "limit_per_day"},
        ]  # fmt: skip
        assert entries[1].before["limit_per_day"] == 50

    @pytest.mark.parametrize("seen", ["", "nonsense", "[]", '{"name": 5}', "{"])
    def test_a_form_that_does_not_say_what_it_showed_is_taken_as_of_now(self, operator, seen):
        prefix = create_key(name="bot").document.prefix
        fields = {**values(operator.get(f"/admin/keys/{prefix}/edit").context["form"]), "seen": seen}
        assert operator.post(f"/admin/keys/{prefix}/edit", {**fields, "name": "car"}).status_code == 302
        assert known_key(prefix).name == "car"

    def test_a_new_secret_is_shown_once(self, operator):
        old = create_key(name="bot")
        prefix = old.document.prefix
        address = f"/admin/keys/{prefix}/rotate"
        form = {**values(operator.get(address).context["form"]), "grace_s": "0"}
        key = operator.post(address, form).context["key"]
        assert KEY.fullmatch(key)
        assert authenticate(key).prefix == prefix
        with pytest.raises(KeyInvalid):
            authenticate(old.key)
        assert key not in operator.get(f"/admin/keys/{prefix}").content.decode()
        again = operator.post(address, form, follow=True)  # the page was reloaded
        assert "This form was sent before" in again.content.decode()
        assert authenticate(key).prefix == prefix

    def test_deleting_asks_first(self, operator):
        new = create_key(name="bot")
        address = f"/admin/keys/{new.document.prefix}/delete"
        assert b"Delete this key?" in operator.get(address).content
        assert authenticate(new.key)
        assert operator.post(address)["Location"] == "/admin/keys"
        assert ApiKey.objects.count() == 0

    def test_only_an_owner_changes_a_key_that_is_as_good_as_one(self, operator, owner, viewer):
        prefix = create_key(name="powerful", scopes=(Scope.ADMIN,)).document.prefix
        plain = create_key(name="plain").document.prefix
        for action in ("edit", "rotate", "delete"):
            assert owner.get(f"/admin/keys/{prefix}/{action}")["Location"].startswith("/admin/account/confirm?next=")
        fields = values(owner.get(f"/admin/keys/{plain}/edit").context["form"])
        asked = owner.post(f"/admin/keys/{plain}/edit", {**fields, "scopes": ["info", "admin"]})
        assert asked["Location"].startswith("/admin/account/confirm?next=")
        assert ApiKey.objects(scopes="admin").count() == 1
        owner.post("/admin/account/confirm", {"password": PASSWORD})
        for action in ("edit", "rotate", "delete", "deactivate", "activate"):
            assert operator.get(f"/admin/keys/{prefix}/{action}").status_code == 403
            assert operator.post(f"/admin/keys/{prefix}/{action}", {"grace_s": "0"}).status_code == 403
            assert owner.get(f"/admin/keys/{prefix}/{action}").status_code == 200
            assert viewer.post(f"/admin/keys/{plain}/{action}").status_code == 403
        page = operator.get(f"/admin/keys/{prefix}")
        assert (page.status_code, f"{prefix}/rotate" in page.content.decode()) == (200, False)
        address = f"/admin/keys/{plain}/edit"
        fields = values(operator.get(address).context["form"])
        assert operator.post(address, {**fields, "scopes": ["info", "admin"]}).status_code == 422

    def test_the_page_says_which_limits_hold_and_why(self, operator):
        operator.post("/admin/users/new", {"username": "ada", "limit_per_day": "4321"})
        key = create_key(name="bot", owner="ada", bytes_per_day=0).document
        text = operator.get(f"/admin/keys/{key.prefix}").content.decode()
        assert re.search(r"24 hours</dt><dd>4.321 <span[^>]*>by the plan", text)
        assert "1,000 <span" in text or re.search(r"1.000 <span[^>]*>by default", text)

    def test_a_revoked_key_and_an_unknown_one(self, operator):
        prefix = create_key(name="bot", owner="").document.prefix
        revoke_key(prefix)
        assert operator.get(f"/admin/keys/{prefix}").status_code == 200
        assert operator.get("/admin/keys/nosuchke/edit").status_code == 404


class TestUsers:
    def test_the_life_of_a_user(self, operator):
        answer = operator.post(
            "/admin/users/new", {"username": "ada.l", "contact": "a@example.org", "limit_per_hour": "7"}
        )
        assert answer["Location"] == "/admin/users/of/ada.l"
        key = create_key(name="bot", owner="ada.l")
        assert authenticate(key.key).limit_per_hour == 7
        page = operator.get("/admin/users/of/ada.l").content.decode()
        assert key.document.prefix in page
        operator.post("/admin/users/of/ada.l/edit", {"contact": "a@example.org", "limit_per_hour": "8", "notes": "n"})
        assert (User.objects.get(username="ada.l").notes, authenticate(key.key).limit_per_hour) == ("n", 8)
        operator.post("/admin/users/of/ada.l/switch")
        with pytest.raises(KeyDisabled):
            authenticate(key.key)
        answer = operator.post("/admin/users/of/ada.l/delete", follow=True)
        assert b"has 1 API keys" in answer.content
        operator.post(f"/admin/keys/{key.document.prefix}/delete")
        operator.post("/admin/users/of/ada.l/delete")
        assert User.objects(username="ada.l").count() == 0
        assert [entry.action for entry in AuditEntry.objects(target_id="ada.l").order_by("at")] == [
            "user.create", "user.update", "user.update", "user.delete",
        ]  # fmt: skip

    def test_what_somebody_else_changed_meanwhile_stays(self, operator, owner):
        operator.post("/admin/users/new", {"username": "ada", "limit_per_day": "5"})
        address = "/admin/users/of/ada/edit"
        mine, theirs = (values(client.get(address).context["form"]) for client in (operator, owner))
        owner.post(address, {**theirs, "limit_per_day": "50", "notes": "theirs"})
        asked = operator.post(address, {**mine, "contact": "x", "notes": "mine"})
        assert set(asked.context["form"].errors) == {"notes"}
        operator.post(address, values(asked.context["form"]))
        user = User.objects.get(username="ada")
        assert (user.limit_per_day, user.contact, user.notes) == (50, "x", "mine")

    def test_lists_and_finds_people(self, operator):
        operator.post("/admin/users/new", {"username": "ada", "name": "Ada Lovelace"})
        rows = operator.get("/admin/users?q=love").context["page"].rows
        assert [row.cells[0].value for row in rows] == ["ada"]
        assert b"Add a user" in operator.get("/admin/users").content

    def test_a_taken_or_wrong_name_is_said_beside_its_field(self, operator):
        for name in ("a b", "", "the-operator"):
            answer = operator.post("/admin/users/new", {"username": name})
            assert "username" in answer.context["form"].errors
            assert answer.status_code == 422

    def test_people_of_the_admin_are_changed_by_owners_only_and_switched_elsewhere(self, operator, owner):
        for action in ("edit", "switch", "delete"):
            assert operator.post(f"/admin/users/of/the-owner/{action}").status_code == 403
        answer = owner.post("/admin/users/of/the-operator/switch", follow=True)
        assert b"on the page Admins" in answer.content
        assert User.objects.get(username="the-operator").active
        assert owner.post("/admin/users/of/the-operator/edit", {"limit_per_hour": "5"}).status_code == 302
        assert User.objects.get(username="the-operator").limit_per_hour == 5

    def test_viewers_look(self, viewer):
        assert viewer.get("/admin/users").status_code == 200
        assert viewer.get("/admin/users/of/the-viewer").status_code == 200
        assert viewer.get("/admin/users/new").status_code == 403
        assert viewer.post("/admin/users/of/the-viewer/edit").status_code == 403
