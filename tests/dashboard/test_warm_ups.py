"""Lists that are fetched in quiet hours, in the admin."""

from __future__ import annotations

import html
import re

import pytest

from apps.core.documents import AuditEntry
from apps.downloads.services.warm_limits import save_warm_limits, warm_limits
from apps.downloads.services.warm_ups import make_warm_up
from apps.downloads.warm_documents import WarmState, WarmUp, WarmUpEntry
from apps.downloads.warm_selectors import find_warm_up
from apps.telegram_cache.documents import MediaKind

LIST = "# charts\nhttps://youtu.be/dQw4w9WgXcQ\n\nabcdefghijk\n<b>nonsense</b>\n"
LIMITS = {"quiet_from": "22:30", "quiet_until": "05:00", "time_zone": "Europe/Berlin", "at_once": "3",
          "max_per_hour": "50", "gib_per_day": "1.5"}  # fmt: skip


@pytest.fixture
def made(server) -> WarmUp:
    return make_warm_up(name="Charts", kind=MediaKind.AUDIO, links=["abcdefghijk", "bcdefghijkl"])


class TestMaking:
    def test_a_pasted_list_is_kept_with_its_wrong_lines_and_noted(self, operator):
        answer = operator.post(
            "/admin/warm-ups/new", {"name": "Charts", "links": LIST, "what": "video:720"}, follow=True
        )
        warm_up = WarmUp.objects.get()
        assert (warm_up.kind, warm_up.wish, warm_up.total, warm_up.any_hour) == ("video", "720", 3, False)
        assert warm_up.created_by == "the-operator"
        assert [entry.state for entry in WarmUpEntry.objects.order_by("number")] == ["waiting", "waiting", "failed"]
        assert b"&lt;b&gt;nonsense&lt;/b&gt;" in answer.content
        (entry,) = AuditEntry.objects(action="warm_up.make")
        assert (entry.target_id, entry.after["links"]) == (warm_up.id, 3)

    def test_a_playlist_is_read_later(self, operator):
        operator.post("/admin/warm-ups/new", {"name": "PL", "playlist": "PLabcdefghijkl", "what": "audio:mp3"})
        warm_up = WarmUp.objects.get()
        assert (warm_up.playlist_id, warm_up.reading, warm_up.wish) == ("PLabcdefghijkl", True, "mp3")

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({}, b"either links or a playlist"),
            ({"links": "# nothing"}, b"no link in this list"),
            ({"links": "abcdefghijk", "playlist": "PLabcdefghijkl"}, b"either links or a playlist"),
            ({"playlist": "https://evil.example/"}, b"playlist"),
        ],
    )
    def test_what_cannot_be_is_said_and_nothing_is_kept(self, operator, fields, words):
        answer = operator.post("/admin/warm-ups/new", {"name": "Charts", "what": "audio", **fields})
        assert (answer.status_code, words in answer.content) == (422, True)
        assert WarmUp.objects.count() == 0


class TestSteering:
    @pytest.mark.parametrize(("what", "after"), [("pause", WarmState.PAUSED), ("cancel", WarmState.CANCELLED)])
    def test_asks_first_then_does_it_and_notes_it(self, operator, made, what, after):
        address = f"/admin/warm-ups/{made.id}/{what}"
        assert operator.get(address).status_code == 200
        assert find_warm_up(made.id).state == WarmState.RUNNING
        operator.post(address)
        assert find_warm_up(made.id).state == after
        (entry,) = AuditEntry.objects(action=f"warm_up.{what}")
        assert (entry.before["state"], entry.after["state"]) == ("running", after)

    def test_goes_on(self, operator, made):
        operator.post(f"/admin/warm-ups/{made.id}/pause")
        assert b"Go on" in operator.get(f"/admin/warm-ups/{made.id}").content
        operator.post(f"/admin/warm-ups/{made.id}/resume")
        assert find_warm_up(made.id).state == WarmState.RUNNING

    def test_one_that_has_ended_says_so(self, operator, made):
        operator.post(f"/admin/warm-ups/{made.id}/cancel")
        answer = operator.post(f"/admin/warm-ups/{made.id}/pause", follow=True)
        assert b"This warm-up is cancelled." in answer.content
        assert AuditEntry.objects(action="warm_up.pause").count() == 0

    def test_a_list_shows_only_its_own_files(self, viewer, made):
        make_warm_up(name="Other", kind=MediaKind.AUDIO, links=["otherotherx"])
        shown = viewer.get(f"/admin/warm-ups/{made.id}").content
        assert b"abcdefghijk" in shown
        assert b"otherotherx" not in shown
        assert b"Other" in viewer.get("/admin/warm-ups").content

    def test_an_unknown_one_is_a_plain_404(self, viewer):
        assert viewer.get("/admin/warm-ups/nothing").status_code == 404


class TestManyAtOnce:
    @pytest.fixture
    def lists(self, made) -> list[WarmUp]:
        return [made, make_warm_up(name="News", kind=MediaKind.AUDIO, links=["newsnewsnew"])]

    @pytest.fixture
    def bulk(self):
        def send(client, action, chosen, **values):
            ids = [warm_up.id for warm_up in chosen]
            return client.post("/admin/warm-ups", {"action": action, "id": ids, **values}, follow=True)

        return send

    def states(self) -> set[str]:
        return {warm_up.state for warm_up in WarmUp.objects}

    def test_are_paused_let_go_on_and_cancelled_after_a_question(self, operator, lists, bulk):
        state = "running"
        for action, question, said, after in (
            ("pause", "Pause 2 lists?", "2 lists paused.", "paused"),
            ("resume", "Go on with 2 lists?", "2 lists going on.", "running"),
            ("cancel", "Cancel 2 lists?", "2 lists cancelled.", "cancelled"),
        ):
            asked = bulk(operator, action, lists).content.decode()
            assert (question in asked, "Charts" in asked, "News" in asked) == (True, True, True)
            assert self.states() == {state}
            assert said in bulk(operator, action, lists, confirmed="yes").content.decode()
            assert self.states() == {after}
            entries = AuditEntry.objects(action=f"warm_up.{action}")
            assert {entry.target_id for entry in entries} == {warm_up.id for warm_up in lists}
            assert {(entry.actor, entry.before["state"], entry.after["state"]) for entry in entries} == {
                ("the-operator", state, after)
            }
            state = after
        assert {entry.state for entry in WarmUpEntry.objects} == {"cancelled"}

    def test_one_that_cannot_is_named_and_the_others_go_on(self, operator, lists, bulk):
        operator.post(f"/admin/warm-ups/{lists[0].id}/cancel")
        answer = bulk(operator, "pause", lists, confirmed="yes").content.decode()
        assert "1 list paused." in answer
        assert "Charts: This warm-up is cancelled." in answer
        (entry,) = AuditEntry.objects(action="warm_up.pause")
        assert entry.target_id == lists[1].id

    def test_a_viewer_sees_no_boxes_and_may_not(self, operator, viewer, lists, bulk):
        assert b"data-bulk" in operator.get("/admin/warm-ups").content
        assert b"data-bulk" not in viewer.get("/admin/warm-ups").content
        for action in ("pause", "resume", "cancel"):
            assert bulk(viewer, action, lists, confirmed="yes").status_code == 403
        assert self.states() == {"running"}
        assert AuditEntry.objects(action__startswith="warm_up.").count() == 0


class TestLimits:
    def test_are_changed_and_noted(self, operator):
        assert operator.post("/admin/warm-ups/limits", LIMITS).status_code == 302
        limits = warm_limits()
        assert (limits.quiet_from, limits.time_zone, limits.at_once) == ("22:30", "Europe/Berlin", 3)
        assert limits.max_bytes_per_day == 1.5 * 1024**3
        (entry,) = AuditEntry.objects(action="warm_up.limits")
        assert (entry.before["at_once"], entry.after["at_once"]) == (2, 3)

    def test_what_somebody_else_set_meanwhile_stays_and_the_same_limit_is_asked_about(self, operator):
        def shown():
            form = operator.get("/admin/warm-ups/limits").context["form"]
            return {name: form[name].value() for name in form.fields}

        save_warm_limits(max_bytes_per_day=5 * 1024**3 + 1)
        mine, theirs = shown(), shown()
        operator.post("/admin/warm-ups/limits", {**theirs, "at_once": "5", "time_zone": "Europe/Berlin"})
        asked = operator.post("/admin/warm-ups/limits", {**mine, "at_once": "6", "max_per_hour": "70"})
        assert (asked.status_code, set(asked.context["form"].errors)) == (422, {"at_once"})
        assert (warm_limits().at_once, warm_limits().max_per_hour) == (5, 120)
        again = {name: asked.context["form"][name].value() for name in mine}
        assert operator.post("/admin/warm-ups/limits", again).status_code == 302
        limits = warm_limits()
        assert (limits.at_once, limits.max_per_hour, limits.time_zone) == (6, 70, "Europe/Berlin")
        assert limits.max_bytes_per_day == 5 * 1024**3 + 1  # the form shows it rounded
        last = AuditEntry.objects(action="warm_up.limits").order_by("-at").first()
        assert (last.before, last.after) == ({"at_once": 5, "max_per_hour": 120}, {"at_once": 6, "max_per_hour": 70})

    def test_nonsense_stands_beside_its_field(self, operator):
        answer = operator.post("/admin/warm-ups/limits", {**LIMITS, "time_zone": "Mars/Base"})
        assert (answer.status_code, b"A time zone such as" in answer.content) == (422, True)
        assert warm_limits().time_zone == "UTC"


class TestTryIt:
    """What is no link to one video there, but to many."""

    LIST = "PLrAXtmErZgOeiKm4sgNOknGvNjby9efdf"

    def test_a_playlist_is_sent_to_the_warm_ups_with_its_link(self, operator):
        answer = operator.post("/admin/try", {"link": f"https://www.youtube.com/playlist?list={self.LIST}"})
        text = answer.content.decode()
        assert (answer.status_code, "This is a playlist" in text) == (422, True)
        href = re.search(r'href="(/admin/warm-ups/new[^"]*)"', text)[1]
        assert self.LIST in operator.get(html.unescape(href)).context["form"]["playlist"].value()

    @pytest.mark.parametrize("link", ["https://www.youtube.com/@somebody/videos", "@somebody"])
    def test_a_channel_is_told_what_to_paste_instead(self, operator, link):
        answer = operator.post("/admin/try", {"link": link})
        assert (answer.status_code, b"This is a channel" in answer.content) == (422, True)

    def test_what_is_neither_is_said_so_and_no_markup(self, operator):
        answer = operator.post("/admin/try", {"link": "<b>x</b>"})
        assert b"not a YouTube video link" in answer.content
        assert b"<b>x" not in answer.content
