import re
from datetime import UTC, datetime, timedelta

import pytest

from apps.core.documents import AuditEntry
from apps.core.errors import KeyDisabled
from apps.core.redis import redis_client
from apps.dashboard.key_forms import KeyForm
from apps.keys.authentication import authenticate
from apps.keys.changes import add_user
from apps.keys.documents import ApiKey, Role, Scope
from apps.keys.services import create_key, revoke_key
from tests.dashboard.conftest import PASSWORD

FORM = {"name": "Music bot", "scopes": ["info", "media"], "limit_per_hour": "50", "form_token": "a" * 32}
KEY = re.compile(r"yt_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}")


def create(client, **changes):
    return client.post("/admin/keys/new", {**FORM, **changes})


class TestCreate:
    def test_the_key_is_shown_once_and_works(self, operator):
        answer = create(operator, owner="sam")
        key = answer.context["key"]
        assert KEY.fullmatch(key)
        assert f'curl -H "X-API-Key: {key}"' in answer.context["curl"]
        grant = authenticate(key)
        assert (grant.name, grant.owner, grant.limit_per_hour, grant.scopes) == (
            "Music bot",
            "sam",
            50,
            {"info", "media"},
        )
        for path in ("/admin/keys", f"/admin/keys/{grant.prefix}", "/admin/audit", "/admin/"):
            assert key not in operator.get(path).content.decode()
        assert not any(key.encode() in (redis_client().get(name) or b"") for name in redis_client().keys("*session*"))

    def test_the_python_example_is_valid_python(self, operator):
        compile(create(operator).context["python"], "example", "exec")

    def test_loading_the_answer_again_makes_no_second_key(self, operator):
        create(operator)
        assert create(operator)["Location"] == "/admin/keys"
        assert ApiKey.objects.count() == 1

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("name", "", "This field is required."),
            ("name", "x" * 101, "at most 100 characters"),
            ("scopes", [], "This field is required."),
            ("scopes", ["everything"], "not one of the available choices"),
            ("limit_per_hour", "0", "From 1 to 1,000,000,000."),
            ("limit_per_hour", "many", "Write a number."),
            ("limit_per_hour", "-1", "0 or more"),
            ("limit_per_hour", "1.5", "Write a number. Whole"),
            ("limit_per_hour", "1,5", "Write a number."),
            ("limit_per_hour", "9" * 20, "From 1 to 1,000,000,000."),
            ("limit_per_hour", "9" * 31, "Give at most 30 characters; these are 31."),
            ("bytes_per_day", "9 parrots", "Write a number and one of"),
            ("bytes_per_day", "1,5 GB", "Write a number and one of"),
            ("bytes_per_day", "9999999 TB", "From 0 to 909 TB."),
            ("longest_video_s", "99999 d", "From 0 to 11,574 d."),
            ("name", "a\x07b", "No control characters"),
            ("name", "\u202egnp.exe", "No control characters"),
            ("name", "\u200b", "Something to read"),
            ("labels", "a\x00b", "No control characters"),
            ("labels", "fine, \u2066x", "No control characters"),
            ("allowed_origins", "https://a.example:99999", "not “https://a.example:99999”"),
            ("allowed_origins", "https://a.example:0", "Write origins"),
            ("allowed_origins", "https://256.256.256.256", "Write origins"),
            ("allowed_cidrs", "10.0.0.0/8, ten", "not “ten”"),
            ("allowed_cidrs", "here", "networks such as 203.0.113.0/24"),
            ("allowed_origins", "app", "origins such as https://app.example.com"),
            ("labels", "x" * 51, "at most 20 labels"),
            ("owner", "a b", "a username"),
            ("expires_on", "2020-01-01", "This day is over."),
        ],
    )
    def test_a_mistake_is_said_beside_its_field_and_nothing_is_made(self, operator, field, value, words):
        answer = create(operator, **{field: value})
        assert answer.status_code == 422
        assert words in str(answer.context["form"].errors[field])
        assert words in answer.content.decode()
        assert f"{field}:" not in str(answer.context["form"].errors[field])  # people read labels, not names of fields
        assert (ApiKey.objects.count(), AuditEntry.objects(action="key.create").count()) == (0, 0)

    def test_a_key_works_to_the_end_of_its_last_day(self, operator):
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # today may be over while the form is read
        create(operator, expires_on=tomorrow.isoformat())
        assert ApiKey.objects.get().expires_at == datetime.combine(tomorrow, datetime.max.time(), UTC).replace(
            microsecond=0
        )

    def test_only_an_owner_may_give_the_admin_scope(self, operator, owner):
        assert create(operator, scopes=["admin"]).status_code == 422
        asked = create(owner, scopes=["admin"])
        assert re.fullmatch(
            r"/admin/account/confirm\?next=(%2Fadmin%2Fkeys%2Fnew%3Ftyped%3D[0-9a-f]{32})&back=\1", asked["Location"]
        )
        assert ApiKey.objects.count() == 0
        owner.post("/admin/account/confirm", {"password": PASSWORD})
        assert create(owner, scopes=["admin"]).status_code == 200

    def test_what_was_typed_stays_when_the_password_is_asked_for(self, owner, log_in):
        typed = {"owner": "sam", "labels": "a, b", "scopes": ["admin"], "expires_on": "2999-01-02"}
        asked = create(owner, **typed)["Location"]
        wrong = owner.post(asked, {"password": "wrong"})
        (back,) = re.findall(r'href="(/admin/keys/new\?typed=[0-9a-f]{32})"', wrong.content.decode())[:1]
        right = owner.post(asked, {"password": PASSWORD})["Location"]
        assert right == back
        page = owner.get(right)
        assert "not saved yet" in page.content.decode()
        assert page.status_code == 200
        shown = {name: page.context["form"][name].value() for name in page.context["form"].fields}
        assert {name: shown[name] for name in {**FORM, **typed}} == {**FORM, **typed}
        assert ApiKey.objects.count() == 0
        sent = {name: value for name, value in shown.items() if value not in (None, False)}
        assert owner.post(right, sent).status_code == 200
        assert (ApiKey.objects.get().owner, ApiKey.objects.get().scopes) == ("sam", ["admin"])
        other = log_in(Role.OPERATOR).get(right)
        assert "no longer known" in other.content.decode()
        assert b"a, b" not in other.content

    def test_a_new_form_starts_with_the_usual_choices(self, operator):
        form = operator.get("/admin/keys/new").context["form"]
        assert isinstance(form, KeyForm)
        assert form["scopes"].value() == ["info", "media", "search"]
        assert form["limit_per_hour"].value() is None  # the user's plan, or the default

    def test_everything_that_a_key_can_be_is_set_at_once(self, operator):
        fields = {
            "owner": "sam", "labels": "trial, bots", "expires_on": "2099-12-31", "allowed_cidrs": "203.0.113.0/24",
            "allowed_origins": "https://app.example.com", "bind_links": "on", "limit_per_hour": "",
            "limit_per_day": "0", "bytes_per_day": "20 GB",
            "concurrent_streams": "3", "concurrent_jobs": "2", "longest_video_s": "2 h",
            "largest_file_bytes": "500 MB",
        }  # fmt: skip
        create(operator, **fields)
        stored = {
            "owner": "sam", "labels": ["trial", "bots"], "expires_at": datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC),
            "allowed_cidrs": ["203.0.113.0/24"], "allowed_origins": ["https://app.example.com"], "bind_links": True,
            "limit_per_hour": None, "limit_per_day": 0, "bytes_per_day": 20 * 2**30, "concurrent_streams": 3,
            "concurrent_jobs": 2, "longest_video_s": 7200, "largest_file_bytes": 500 * 2**20,
        }  # fmt: skip
        key = ApiKey.objects.get()
        assert {name: getattr(key, name) for name in stored} == stored
        (entry,) = AuditEntry.objects(action="key.create")
        assert {name: entry.after[name] for name in ("bytes_per_day", "allowed_cidrs", "limit_per_day")} == {
            "bytes_per_day": 20 * 2**30, "allowed_cidrs": ["203.0.113.0/24"], "limit_per_day": 0,
        }  # fmt: skip

    def test_a_form_that_was_put_right_is_taken(self, operator):
        assert create(operator, owner="a b").status_code == 422
        assert create(operator).status_code == 200

    def test_a_key_without_limits_of_its_own_follows_the_users_plan(self, operator):
        add_user("sam", {"limit_per_hour": 7}, actor="test")
        answer = create(operator, owner="sam", limit_per_hour="")
        assert authenticate(answer.context["key"]).limit_per_hour == 7


class TestSwitch:
    def test_a_deactivated_key_is_refused_and_can_come_back(self, operator):
        made = create_key(name="bot")
        address = f"/admin/keys/{made.document.prefix}"
        assert b"Switch this key off?" in operator.get(f"{address}/deactivate").content
        assert authenticate(made.key)
        operator.post(f"{address}/deactivate")
        with pytest.raises(KeyDisabled):
            authenticate(made.key)
        operator.post(f"{address}/activate")
        assert authenticate(made.key).name == "bot"

    def test_an_admin_key_goes_off_at_once_and_on_only_after_the_password(self, owner):
        made = create_key(name="powerful", scopes=(Scope.ADMIN,))
        address = f"/admin/keys/{made.document.prefix}"
        assert owner.post(f"{address}/deactivate")["Location"] == address
        for ask in (owner.get, owner.post):
            assert ask(f"{address}/activate")["Location"].startswith("/admin/account/confirm?next=")
        with pytest.raises(KeyDisabled):
            authenticate(made.key)
        owner.post("/admin/account/confirm", {"password": PASSWORD})
        owner.post(f"{address}/activate")
        assert authenticate(made.key)

    def test_the_user_of_an_admin_key_is_changed_by_owners_and_switched_on_after_the_password(self, owner, operator):
        made = create_key(name="powerful", owner="bob", scopes=(Scope.ADMIN,))
        for page in ("edit", "switch", "delete"):
            assert operator.post(f"/admin/users/of/bob/{page}").status_code == 403
        assert b"/users/of/bob/switch" not in operator.get("/admin/users/of/bob").content
        assert authenticate(made.key)
        owner.post("/admin/users/of/bob/switch")
        asked = owner.post("/admin/users/of/bob/switch")
        assert asked["Location"].startswith("/admin/account/confirm?next=")
        with pytest.raises(KeyDisabled):
            authenticate(made.key)
        owner.post("/admin/account/confirm", {"password": PASSWORD})
        owner.post("/admin/users/of/bob/switch")
        assert authenticate(made.key)

    def test_each_switch_is_in_the_audit_log_once(self, operator):
        prefix = create_key(name="bot").document.prefix
        for _ in range(2):
            operator.post(f"/admin/keys/{prefix}/deactivate")
        (entry,) = AuditEntry.objects(action="key.deactivate")
        assert (entry.actor, entry.target_id, entry.address) == ("the-operator", prefix, "127.0.0.1")
        assert (entry.before, entry.after) == ({"active": True}, {"active": False})
        assert b"key.deactivate" in operator.get(f"/admin/keys/{prefix}").content

    def test_a_revoked_key_stays_off(self, operator):
        prefix = create_key(name="bot").document.prefix
        revoke_key(prefix)
        answer = operator.post(f"/admin/keys/{prefix}/activate", follow=True)
        assert b"revoked for good" in answer.content
        assert not ApiKey.objects.get(prefix=prefix).active
        assert f"/admin/keys/{prefix}/activate" not in operator.get("/admin/keys").content.decode()


class TestList:
    def test_finds_by_name_owner_and_prefix_and_by_state(self, operator):
        keys = [create_key(name=name, owner=owner).document for name, owner in (("Bot", "sam"), ("Site", "alex"))]
        ApiKey.objects(prefix=keys[1].prefix).update_one(expires_at=datetime.now(UTC) - timedelta(days=1))

        def found(query: str) -> list[str]:
            rows = operator.get(f"/admin/keys?{query}").context["page"].rows
            return sorted(row.cells[0].value for row in rows)

        assert found("q=BOT") == found("q=sam") == found(f"q={keys[0].prefix}") == ["Bot"]
        assert found("state=on") == ["Bot"]
        assert found("state=expired") == ["Site"]
        assert found("state=nonsense&sort=secret_sha256&cursor=zzz") == ["Bot", "Site"]
        assert found("q=.*") == []

    def test_an_empty_list_says_what_to_do_first(self, operator):
        assert b"No API keys yet" in operator.get("/admin/keys").content
