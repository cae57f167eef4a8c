"""Warm-ups by the API: for admin keys and people of the admin only."""

from __future__ import annotations

import pytest

from apps.core.documents import AuditEntry
from apps.downloads.services.warm_limits import save_warm_limits
from apps.downloads.warm_documents import WarmUp, WarmUpEntry
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.downloads.conftest import Api

LINKS = ["dQw4w9WgXcQ", "https://youtu.be/aaaaaaaaaaa", "nonsense"]


@pytest.fixture
def admin(api):
    return Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key)


@pytest.fixture
def made(admin):
    return admin.post("admin/warm-ups", {"name": "Charts", "urls": LINKS, "format": "mp3", "any_hour": True}).json()


class TestWarmUps:
    def test_a_list_is_made_and_says_what_is_no_link(self, admin, made):
        shown = made["warm_up"]
        assert (shown["name"], shown["state"], shown["total"]) == ("Charts", "running", 3)
        assert (shown["file_type"], shown["wish"], shown["begins_at"]) == ("audio", "mp3", None)
        assert shown["counts"] == {"waiting": 2, "fetching": 0, "done": 0, "failed": 1, "cancelled": 0}
        assert [(each["url"], each["failure"]["code"]) for each in made["failures"]] == [("nonsense", "invalid_url")]
        assert admin.get(f"admin/warm-ups/{shown['id']}").json() == made
        page = admin.get("admin/warm-ups").json()
        assert (page["total"], page["warm_ups"]) == (1, [shown])

    def test_it_is_paused_goes_on_and_is_cancelled_and_each_change_is_in_the_audit_log(self, admin, made):
        place = f"admin/warm-ups/{made['warm_up']['id']}"
        assert admin.post(f"{place}/pause", {}).json()["warm_up"]["state"] == "paused"
        assert admin.post(f"{place}/pause", {}).json()["error"] == "conflict"
        assert admin.post(f"{place}/resume", {}).json()["warm_up"]["state"] == "running"
        ended = admin.delete(place).json()["warm_up"]
        assert (ended["state"], ended["counts"]["cancelled"]) == ("cancelled", 2)
        assert ended["finished_at"]
        assert WarmUpEntry.objects(state="waiting").count() == 0
        entries = list(AuditEntry.objects(target_kind="warm_up").order_by("at"))
        assert [entry.action for entry in entries] == [
            "warm_up.make", "warm_up.pause", "warm_up.resume", "warm_up.cancel",
        ]  # fmt: skip
        assert {entry.actor for entry in entries} == {f"key {admin.prefix}"}

    def test_a_playlist_is_kept_and_waits_for_the_quiet_hours(self, admin):
        save_warm_limits(quiet_from="03:00", quiet_until="03:01")
        answer = admin.post(
            "admin/warm-ups",
            {
                "name": "All of it",
                "playlist": "https://www.youtube.com/playlist?list=PLabcdefghijkl",
                "file_type": "video",
            },
        )
        shown = answer.json()["warm_up"]
        assert (answer.status_code, shown["playlist_id"], shown["reading"]) == (201, "PLabcdefghijkl", True)
        assert shown["begins_at"] is None or shown["begins_at"].endswith("T03:00:00Z")
        assert WarmUp.objects.get().created_by == f"key {admin.prefix}"

    @pytest.mark.parametrize(
        ("fields", "parameter"),
        [
            ({"urls": LINKS}, "name"),
            ({"name": "x"}, "urls"),
            ({"name": "x", "urls": ["a"] * 1001}, "urls"),
            ({"name": "x", "urls": LINKS, "playlist": "PLabcdefghijkl"}, "urls"),
            ({"name": "x", "urls": LINKS, "wait": 5}, "wait"),
            ({"name": "x", "urls": LINKS, "quality": "720"}, "quality"),
        ],
    )
    def test_what_is_wrong_is_named(self, admin, fields, parameter):
        answer = admin.post("admin/warm-ups", fields)
        assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)
        assert WarmUp.objects.count() == 0

    def test_others_may_not_and_unknown_ones_are_not_found(self, api, admin, made):
        assert api.get("admin/warm-ups").json()["error"] == "scope_missing"
        assert api.delete(f"admin/warm-ups/{made['warm_up']['id']}").json()["error"] == "scope_missing"
        assert admin.delete("admin/warm-ups/nothing").json()["error"] == "not_found"


def test_the_first_page_lists_every_section(api):
    listed = api.get("").json()
    assert {"info", "me", "admin/analytics", "admin/warm-ups"} <= listed.keys()
