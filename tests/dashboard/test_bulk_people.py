"""Actions on many keys and many users at once: asked first, by role, with the password again, each in the audit log."""

from __future__ import annotations

import pytest

from apps.core.documents import AuditEntry
from apps.keys.changes import add_user
from apps.keys.documents import ApiKey, Role, Scope, User
from apps.keys.selectors import find_key
from apps.keys.services import create_key, create_user
from tests.dashboard.conftest import PASSWORD


def bulk(client, where, action, ids, **values):
    return client.post(f"/admin/{where}", {"action": action, "id": [str(one) for one in ids], **values}, follow=True)


def add_key(name, **fields) -> ApiKey:
    return create_key(name=name, **fields).document


class TestKeys:
    def test_are_switched_off_and_on_after_a_question(self, operator):
        keys = [add_key("first"), add_key("second")]
        asked = bulk(operator, "keys", "deactivate", [key.id for key in keys]).content.decode()
        assert "Switch 2 keys off?" in asked
        assert all(f"{key.name} ({key.prefix})" in asked for key in keys)
        assert ApiKey.objects(active=True).count() == 2
        for action, active, said in (("deactivate", False, "2 keys switched off."), ("activate", True, "2 keys")):
            answer = bulk(operator, "keys", action, [key.id for key in keys], confirmed="yes").content.decode()
            assert said in answer
            assert ApiKey.objects(active=active).count() == 2
            entries = AuditEntry.objects(action=f"key.{action}")
            assert {entry.target_id for entry in entries} == {key.prefix for key in keys}
            assert {entry.actor for entry in entries} == {"the-operator"}

    def test_are_deleted(self, operator):
        keys = [add_key("first"), add_key("second"), add_key("stays")]
        answer = bulk(operator, "keys", "delete", [key.id for key in keys[:2]], confirmed="yes")
        assert b"2 keys deleted." in answer.content
        assert [key.name for key in ApiKey.objects] == ["stays"]
        assert AuditEntry.objects(action="key.delete").count() == 2

    def test_only_those_that_changed_are_counted(self, operator):
        on, off = add_key("on"), add_key("off")
        off.update(active=False)
        answer = bulk(operator, "keys", "deactivate", [on.id, off.id], confirmed="yes").content.decode()
        assert "1 key switched off." in answer
        assert "1 key was so already." in answer
        again = bulk(operator, "keys", "deactivate", [on.id, off.id], confirmed="yes").content.decode()
        assert "switched off." not in again
        assert "2 keys were so already." in again
        assert AuditEntry.objects(action="key.deactivate").count() == 1

    def test_one_that_was_revoked_for_good_is_named_and_the_others_go_on(self, operator):
        gone, plain = add_key("gone"), add_key("plain")
        gone.update(active=False, revoked_at=gone.created_at)
        plain.update(active=False)
        answer = bulk(operator, "keys", "activate", [gone.id, plain.id], confirmed="yes").content.decode()
        assert "1 key switched on." in answer
        assert f"gone ({gone.prefix}): This key was revoked for good." in answer
        assert (find_key(gone.prefix).active, find_key(plain.prefix).active) == (False, True)

    @pytest.mark.parametrize(("action", "again"), [("delete", True), ("activate", True), ("deactivate", False)])
    def test_as_good_as_an_owner_need_the_password_again_where_one_alone_does(self, owner, action, again):
        powerful = add_key("powerful", scopes=(Scope.ADMIN,))
        powerful.update(active=action == "deactivate")
        answer = owner.post("/admin/keys?q=powerful", {"action": action, "id": str(powerful.id), "confirmed": "yes"})
        assert answer["Location"].startswith("/admin/account/confirm?next=") is again
        key = find_key(powerful.prefix)
        assert (key is not None and key.active == (action == "deactivate")) is again
        if again:
            back = owner.post(answer["Location"], {"password": PASSWORD})
            asked = owner.get(back["Location"]).content.decode()
            assert f"powerful ({powerful.prefix})" in asked
            assert f'href="/admin/keys?q=powerful&amp;ticked={powerful.id}"' in asked
            done = owner.post(back["Location"], {"action": action, "id": str(powerful.id), "confirmed": "yes"})
            assert done["Location"] == "/admin/keys?q=powerful"
            assert AuditEntry.objects(action=f"key.{action}").count() == 1

    def test_who_gives_no_password_finds_them_ticked_still(self, owner):
        powerful, _ = add_key("powerful", scopes=(Scope.ADMIN,)), add_key("plain")
        asked = owner.post("/admin/keys?q=p", {"action": "delete", "id": str(powerful.id)})
        for client_answer in (owner.get(asked["Location"]), owner.post(asked["Location"], {"password": "wrong"})):
            assert f'href="/admin/keys?q=p&amp;ticked={powerful.id}"' in client_answer.content.decode()
        outside = owner.get("/admin/account/confirm?next=/admin/keys&back=https://example.com/")
        assert b'href="/admin/account"' in outside.content

    def test_that_were_chosen_before_the_password_are_only_for_who_chose_them(self, owner, operator):
        powerful = add_key("powerful", scopes=(Scope.ADMIN,))
        asked = owner.post("/admin/keys", {"action": "delete", "id": str(powerful.id)})
        kept = owner.post(asked["Location"], {"password": PASSWORD})["Location"]
        assert "Delete 1 key?" in owner.get(kept).content.decode()
        for client, address in ((operator, kept), (owner, kept.replace("keys", "users")), (owner, kept[:-1] + "-")):
            answer = client.get(address, follow=True).content.decode()
            assert "What you chose is no longer known." in answer
            assert "Delete 1" not in answer

    def test_as_good_as_an_owner_are_not_an_operators(self, operator):
        powerful, plain = add_key("powerful", scopes=(Scope.ADMIN,)), add_key("plain")
        answer = bulk(operator, "keys", "deactivate", [powerful.id, plain.id], confirmed="yes").content.decode()
        assert "Only an owner may change a key with the scope admin" in answer
        assert (find_key(powerful.prefix).active, find_key(plain.prefix).active) == (True, False)
        operator.post("/admin/account/confirm", {"password": PASSWORD})
        bulk(operator, "keys", "delete", [powerful.id], confirmed="yes")
        assert find_key(powerful.prefix) is not None

    def test_a_viewer_sees_no_boxes_and_may_not(self, viewer):
        key = add_key("plain")
        assert b"data-bulk" not in viewer.get("/admin/keys").content
        assert bulk(viewer, "keys", "delete", [key.id], confirmed="yes").status_code == 403
        assert find_key(key.prefix) is not None


class TestUsers:
    def add(self, name) -> User:
        return add_user(name, {}, actor="test")

    def test_are_switched_off_and_on_after_a_question(self, operator):
        ids = [self.add("kim").id, self.add("sam").id]
        assert b"Switch 2 users off?" in bulk(operator, "users", "deactivate", ids).content
        assert User.objects(id__in=ids, active=True).count() == 2
        for action, active in (("deactivate", False), ("activate", True)):
            answer = bulk(operator, "users", action, ids, confirmed="yes").content.decode()
            assert f"2 users switched {'on' if active else 'off'}." in answer
            assert User.objects(id__in=ids, active=active).count() == 2
        assert AuditEntry.objects(action="user.update", actor="the-operator").count() == 4

    def test_only_those_without_keys_are_deleted(self, operator):
        busy, idle = self.add("busy"), self.add("idle")
        add_key("of busy", owner="busy")
        answer = bulk(operator, "users", "deactivate", [idle.id], confirmed="yes").content.decode()
        assert "1 user switched off." in answer
        answer = bulk(operator, "users", "deactivate", [idle.id], confirmed="yes").content.decode()
        assert "1 user was so already." in answer
        answer = bulk(operator, "users", "delete", [busy.id, idle.id], confirmed="yes").content.decode()
        assert "1 user deleted." in answer
        assert "busy has 1 API keys." in answer
        assert (User.objects(username="busy").count(), User.objects(username="idle").count()) == (1, 0)
        assert AuditEntry.objects(action="user.delete").count() == 1

    def test_people_of_the_admin_stay_as_they_are(self, operator, owner):
        other = create_user(username="another", password=PASSWORD, role=Role.VIEWER)
        for client, words in ((operator, "Only an owner may change people"), (owner, "may enter the admin")):
            for action in ("deactivate", "delete"):
                answer = bulk(client, "users", action, [other.id], confirmed="yes")
                assert words in answer.content.decode()
        assert User.objects(username="another", active=True).count() == 1

    def test_whose_keys_are_as_good_as_an_owner_need_the_password_again(self, owner):
        user = self.add("kim")
        add_key("powerful", owner="kim", scopes=(Scope.ADMIN,))
        user.update(active=False)
        chosen = {"action": "activate", "id": str(user.id), "confirmed": "yes"}
        answer = owner.post("/admin/users", chosen)
        assert answer["Location"].startswith("/admin/account/confirm?next=")
        assert User.objects(username="kim", active=True).count() == 0
        owner.post("/admin/account/confirm", {"password": PASSWORD})
        assert owner.post("/admin/users", chosen)["Location"] == "/admin/users"
        assert User.objects(username="kim", active=True).count() == 1
