from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pyotp
import pytest
from django.core.management import CommandError, call_command

from apps.core.documents import AuditEntry
from apps.core.errors import Conflict, InvalidParameter, NotFound
from apps.core.secrets import decrypt_secret
from apps.keys.admins import create_admin, find_admin, set_admin_active, set_role
from apps.keys.changes import update_user
from apps.keys.documents import Role, User
from apps.keys.second_factor import finish_setup, has_second_factor, new_pending
from apps.keys.services import check_password

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")


def person(name: str, role: Role) -> User:
    return User(username=name, role=role.value).save()


def test_a_new_admin_gets_a_password_that_works():
    user, password = create_admin(username="ada", role=Role.VIEWER)
    assert check_password("ada", password).id == user.id
    with pytest.raises(Conflict):
        create_admin(username="ada", role=Role.OWNER)
    with pytest.raises(InvalidParameter):
        create_admin(username="bob", role=Role.NONE)


def test_a_user_with_keys_can_become_an_admin():
    person("sam", Role.NONE)
    user, password = create_admin(username="sam", role=Role.OPERATOR)
    assert (user.role, check_password("sam", password).id) == ("operator", user.id)
    assert User.objects.count() == 1


def test_the_last_owner_stays_an_owner_and_active():
    owner = person("ada", Role.OWNER)
    for change in (lambda: set_role(owner, Role.VIEWER), lambda: set_admin_active(owner, active=False)):
        with pytest.raises(Conflict):
            change()
        owner.reload()
        assert (owner.role, owner.active) == ("owner", True)


def test_two_owners_who_demote_each_other_at_once_leave_an_owner():
    for number in range(10):
        User.objects.delete()
        pair = [person(f"a{number}", Role.OWNER), person(f"b{number}", Role.OWNER)]

        def demote(user):
            try:
                return set_role(user, Role.NONE)
            except Conflict:
                return False

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(demote, pair))
        assert User.objects(role="owner", active=True).count() >= 1


def test_changes_end_the_sessions_and_say_whether_they_changed_anything():
    person("owner", Role.OWNER)
    user = person("ada", Role.VIEWER)
    version = user.session_version
    assert set_role(user, Role.OPERATOR)
    assert not set_role(user, Role.OPERATOR)
    assert set_admin_active(user, active=False)
    assert not set_admin_active(user, active=False)
    assert user.session_version == version + 2


def test_only_people_with_a_role_are_admins():
    for user_id in (str(person("sam", Role.NONE).id), "nonsense", "0" * 24):
        with pytest.raises(NotFound):
            find_admin(user_id)


def test_the_api_of_users_does_not_switch_admins_off():
    person("ada", Role.OWNER)
    with pytest.raises(Conflict):
        update_user("ada", {"active": False}, actor="key abcdefgh")
    assert User.objects.get(username="ada").active


def test_the_command_makes_any_role():
    out = StringIO()
    call_command("create_admin", "--username", "vi", "--role", "viewer", "--json", stdout=out)
    assert check_password("vi", json.loads(out.getvalue())["password"]).role == "viewer"


def test_the_command_helps_somebody_back_in_and_is_on_the_audit_log():
    user, old = create_admin(username="ada", role=Role.OWNER)
    pending = new_pending()
    finish_setup(user, pending, pyotp.TOTP(decrypt_secret(pending)).now())
    User.objects(id=user.id).update_one(active=False)
    out = StringIO()
    call_command("reset_admin", "--username", "ada", "--second-factor", "--activate", "--json", stdout=out)
    assert check_password("ada", old) is None
    found = check_password("ada", json.loads(out.getvalue())["password"])
    assert not has_second_factor(found)
    assert {entry.action for entry in AuditEntry.objects} == {
        "user.reset_password", "user.reset_second_factor", "user.activate",
    }  # fmt: skip
    with pytest.raises(CommandError):
        call_command("reset_admin", "--username", "nobody")
