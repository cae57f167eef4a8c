"""Jobs, cache, audit log and overview: what they show and what they change."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from apps.analytics.rollups import rebuild
from apps.core import audit
from apps.core.clock import utcnow
from apps.core.documents import AuditEntry
from apps.core.markup import with_code
from apps.dashboard import selectors
from apps.dashboard.asset_work import WORKS
from apps.dashboard.audit_list import TARGET_KINDS, WHAT
from apps.dashboard.audit_words import WORDS, action_words
from apps.dashboard.selectors import work
from apps.dashboard.templatetags.ui import human_bytes, relative
from apps.downloads.documents import IdentityKind, JobState, MediaJob
from apps.downloads.providers.health import note_outcome
from apps.downloads.services.provider_settings import set_provider_enabled
from apps.keys.services import create_key
from apps.telegram_cache.documents import AssetState, BotState, TelegramBot
from apps.telegram_cache.selectors import titles_of
from tests.dashboard.samples import event, fill_server, make_asset, make_bot, make_channel, make_job
from ytserver.env import BASE_DIR

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)


class TestJobs:
    def test_a_running_job_is_cancelled_after_a_question(self, operator):
        job = make_job()
        address = f"/admin/jobs/{job.id}/cancel"
        assert b"Cancel this job?" in operator.get(address).content
        assert MediaJob.objects.get(id=job.id).active
        assert b"was cancelled" in operator.post(address, follow=True).content
        assert MediaJob.objects.get(id=job.id).state == JobState.CANCELLED
        (entry,) = AuditEntry.objects(action="job.cancel")
        assert (entry.before["state"], entry.after["state"]) == ("running", "cancelled")

    def test_a_job_that_has_ended_stays_as_it_is(self, operator):
        job = make_job(state=JobState.DONE)
        answer = operator.post(f"/admin/jobs/{job.id}/cancel", follow=True)
        assert b"had ended already: done" in answer.content
        assert MediaJob.objects.get(id=job.id).state == JobState.DONE
        assert AuditEntry.objects(action="job.cancel").count() == 0

    def test_a_failed_job_is_tried_again_whatever_it_should_wait_for(self, operator):
        job = make_job(state=JobState.FAILED)
        make_asset(1, state=AssetState.FAILED, error_code="upstream_error", retry_at=utcnow() + timedelta(hours=1))
        address = f"/admin/jobs/{job.id}/retry"
        assert b"Try this job again?" in operator.get(address).content
        answer = operator.post(address, follow=True)
        assert b"was started again" in answer.content
        new = MediaJob.objects.get(asset_id=job.asset_id, active=True)
        assert answer.redirect_chain == [(f"/admin/jobs/{new.id}", 302)]
        assert AuditEntry.objects(action="job.retry", target_id=job.id).count() == 1

    def test_its_page_tells_which_sources_were_asked_and_who_asked(self, viewer, operator):
        key = create_key(name="bot", owner="sam").document.prefix
        asset = make_asset(3, state=AssetState.CACHED, title="Evening raga")
        asked = NOW - timedelta(minutes=1)
        job = make_job(
            3, state=JobState.DONE, provider="ytdlp", provider_took_s=4.5, key_prefix=key, created_at=asked,
            finished_at=asked + timedelta(seconds=12), bytes_done=2048,
            provider_errors=[{"provider": "savetube", "code": "upstream_timeout", "message": "It took too long.",
                              "took_s": 8.25, "attempt": 1}],
        )  # fmt: skip
        page = viewer.get(f"/admin/jobs/{job.id}").content.decode()
        for text in ("Evening raga", "savetube", "It took too long.", "8.2 s", "upstream_timeout", "4.5 s", "served it",
                     "after 12.0 s", f"/admin/keys/{key}", f"/admin/cache/{asset.id}", "2 KB"):  # fmt: skip
            assert text in page, text
        assert f"/admin/jobs/{job.id}" in viewer.get("/admin/jobs").content.decode()
        running = make_job(5)
        shown = operator.get(f"/admin/jobs/{running.id}").content.decode()
        assert f'data-job="{running.id}"' in shown
        assert f"/admin/jobs/{running.id}/cancel" in shown
        assert "/cancel" not in viewer.get(f"/admin/jobs/{running.id}").content.decode()
        assert viewer.get("/admin/jobs/nothing").status_code == 404

    def test_how_far_a_running_one_is_stands_only_where_it_is_kept_up_to_date(self, viewer):
        job = make_job(stage="connecting", bytes_done=1024, bytes_total=4096)
        page = viewer.get(f"/admin/jobs/{job.id}").content.decode()
        assert page.count("connecting") == 1
        assert page.count("1 KB of 4 KB") == 1
        assert (
            "1 KB" in viewer.get(f"/admin/jobs/{make_job(3, state=JobState.DONE, bytes_done=1024).id}").content.decode()
        )

    def test_the_list_has_titles_where_they_are_known_and_reads_them_once(self, viewer, monkeypatch):
        known, unknown = [make_job(number) for number in (1, 3)], make_job(5)
        for number in (1, 3):
            make_asset(number, title=f"A walk on day {number}")
        reads = []
        monkeypatch.setattr(work, "titles_of", lambda ids: reads.append(ids) or titles_of(ids))
        page = viewer.get("/admin/jobs").content.decode()
        for number, job in zip((1, 3), known, strict=True):
            assert f'>A walk on day {number}</a><div class="note">{job.video_id}</div>' in page
        assert f">{unknown.video_id}</a></td>" in page
        assert len(reads) == 1

    def test_a_failed_job_says_why(self, viewer):
        make_job(state=JobState.FAILED, error_message="This video is private.")
        assert b"This video is private." in viewer.get("/admin/jobs").content


class TestCache:
    def test_is_searched_by_title_and_by_video_id(self, viewer):
        make_asset(1, title="Evening <b>raga</b>")
        make_asset(2, title="Other")
        for query in ("raga", "video000001"):
            page = viewer.get(f"/admin/cache?q={query}")
            assert page.context["page"].total == 1
            assert b"Evening &lt;b&gt;raga&lt;/b&gt;" in page.content

    def test_one_asset_shows_what_went_wrong(self, viewer):
        asset = make_asset(1, state=AssetState.FAILED, title="x", error_message="The outside source took too long.")
        page = viewer.get(f"/admin/cache/{asset.id}")
        assert b"The outside source took too long." in page.content
        assert b"No part of it is in Telegram." in page.content


class TestSources:
    def test_the_list_says_once_why_a_source_failed_again_and_again(self, viewer):
        failures = [{"provider": "savetube", "code": "upstream_error", "took_s": 1.0}] * 3
        make_job(1, provider_errors=[*failures, {"provider": "ytdlp", "code": "bot_check"}])
        assert b"savetube: upstream error, 3 times; ytdlp: bot check" in viewer.get("/admin/jobs").content


class TestAudit:
    def test_keeps_no_secret_whatever_it_is_given(self, server):
        key = f"yt_abcdefgh_{'s' * 43}"
        audit.record(
            actor="sam", action="bot.add", target_kind="bot", target_id="1",
            before={"token": "1:abc", "name": "old"}, after={"password_hash": "argon2", "name": key, "scopes": ["a"]},
        )  # fmt: skip
        entry = AuditEntry.objects.get()
        assert entry.before == {"token": audit.REDACTED, "name": "old"}
        assert entry.after["password_hash"] == audit.REDACTED
        assert "sss" not in str(entry.to_mongo())
        assert entry.after["scopes"] == ["a"]

    def test_shows_who_changed_what(self, viewer):
        audit.record(
            actor="sam", action="key.deactivate", target_kind="key", target_id="abcdefgh",
            before={"active": True}, after={"active": False}, address="10.0.0.9",
        )  # fmt: skip
        page = viewer.get("/admin/audit?about=key&q=sam").content.decode()
        for text in ("sam", "10.0.0.9", "Switched an API key off", "key.deactivate", "key abcdefgh", "<s>yes</s>"):
            assert text in page

    def test_shows_only_what_changed(self, viewer):
        audit.record(
            actor="sam", action="channel.settings", target_kind="channel", target_id="-1001",
            before={"playable": False, "scratch_chat_id": "", "messages_per_min": 60},
            after={"playable": False, "scratch_chat_id": "", "messages_per_min": 33},
        )  # fmt: skip
        page = viewer.get("/admin/audit?about=channel").content.decode()
        assert "messages per min" in page
        assert "playable" not in page
        assert "scratch chat" not in page

    def test_what_was_not_changed_is_not_shown_as_gone(self, viewer):
        audit.record(
            actor="sam", action="asset.verify", target_kind="asset", target_id="abc",
            before={"title": "Evening raga", "state": "cached"},
        )  # fmt: skip
        page = viewer.get("/admin/audit").content.decode()
        assert "Evening raga" in page
        assert "<s>Evening raga" not in page

    @pytest.mark.parametrize(
        ("what", "some", "none"),
        [
            ("deactivate", {"key.deactivate", "bot.disable", "second_factor.off"}, {"key.activate", "bot.token"}),
            ("activate", {"user.activate", "channel.enable", "warm_up.resume"}, {"provider.disable"}),
            ("create", {"key.create", "bot.add", "warm_up.make", "key.import"}, {"key.update"}),
            ("delete", {"key.delete", "proxy.remove", "webhook removed"}, {"webhook set"}),
            ("change", {"key.update", "channel.settings", "setting.change", "bot.token"}, {"po_token.add"}),
            ("login", {"login.done", "password.wrong"}, {"password.change"}),
        ],
    )
    def test_is_narrowed_to_what_was_done_whatever_it_was_done_to(self, viewer, what, some, none):
        for action in WORDS:
            audit.record(actor="sam", action=action, target_kind="key", target_id="abcdefgh")
        page = viewer.get(f"/admin/audit?what={what}&q=sam").content.decode()
        for action in WORDS:
            assert (f">{action}<" in page) == (action in WHAT[what].actions)
        assert some <= WHAT[what].actions
        assert not none & WHAT[what].actions

    def test_every_action_and_every_kind_of_thing_can_be_chosen(self):
        chosen = [action for group in WHAT.values() for action in group.actions]
        assert sorted(chosen) == sorted(WORDS)
        sources = "".join(path.read_text() for path in (BASE_DIR / "apps").rglob("*.py"))
        kinds = set(re.findall(r'target_kind="([a-z_]+)"', sources)) | {kind.value for kind in IdentityKind}
        assert len(kinds) > 10
        assert kinds == {value for value, _ in TARGET_KINDS}

    def test_every_action_has_words(self):
        kinds = {action.partition(".")[0] for action in WORDS}
        code = re.compile(rf'"((?:{"|".join(map(re.escape, kinds))})\.[a-z_]+)"')
        found = {action for path in (BASE_DIR / "apps").rglob("*.py") for action in code.findall(path.read_text())}
        assert len(found) > 40
        assert found - set(WORDS) == {"cookies.txt"}
        assert {f"asset.{name}" for name in WORKS} <= set(WORDS)
        assert action_words("thing.was_done") == "Thing: was done"


class TestOverview:
    def test_a_new_server_says_what_to_do_first(self, operator):
        page = operator.get("/admin/").content
        for words in (b"First steps", b"Create an API key", b"Set up Telegram", b"Nobody works on"):
            assert words in page

    def test_telegram_is_set_up_only_with_a_bot_and_a_channel(self, operator):
        make_bot()
        page = operator.get("/admin/").content
        assert b"Set up Telegram" not in page
        assert b'href="/admin/telegram/channels/new">Add a channel' in page
        make_channel()
        assert b"Add a channel" not in operator.get("/admin/").content

    def test_a_server_in_use_shows_its_figures(self, viewer):
        fill_server()
        answer = viewer.get("/admin/overview/live")
        figures = answer.context["figures"]
        assert (figures.active_jobs, len(figures.jobs), figures.cached_count) == (3, 3, 63)
        assert sum(row.video + row.audio for row in figures.states) == 67
        assert not figures.is_new
        assert b"<html" not in answer.content

    def test_jobs_keep_their_places_while_they_run(self, viewer):
        now = datetime.now(UTC)
        make_job(1, state=JobState.QUEUED, turn=1, priority="batch", created_at=now - timedelta(minutes=9))
        make_job(2, state=JobState.QUEUED, turn=7, created_at=now - timedelta(minutes=8))
        make_job(3, state=JobState.QUEUED, turn=5)
        make_job(4, started_at=now - timedelta(minutes=1), updated_at=now)
        make_job(5, started_at=now - timedelta(minutes=2), updated_at=now - timedelta(seconds=1))
        shown = [job.video_id for job in selectors.figures().jobs]
        assert shown == [f"video{number:06}" for number in (5, 4, 3, 2, 1)]
        for number in range(6, 12):
            make_job(number, started_at=now)
        assert [job.state for job in selectors.figures().jobs] == ["running"] * 8

    def test_a_job_that_waits_says_so_and_one_that_began_shows_how_far_it_is(self, viewer):
        make_job(1, state=JobState.QUEUED)
        make_job(2, started_at=datetime.now(UTC), bytes_done=50, bytes_total=100)
        waiting, running = (
            viewer.get("/admin/overview/live")
            .content.decode()
            .partition('id="jobs-title"')[2]
            .split("video000001")[::-1]
        )
        assert "waits for its turn" in waiting
        assert 'value="50"' in running

    def test_bots_that_all_rest_are_not_called_down(self, server):
        make_channel()
        make_bot(state=BotState.COOLING.value, until=datetime.now(UTC) + timedelta(minutes=3))
        make_bot("234567", state=BotState.DISABLED.value)
        telegram = selectors.health()[-1]
        assert (telegram.tone, telegram.word) == ("warning", "attention")
        assert "rests for a while" in telegram.text
        TelegramBot.objects(bot_id="123456").delete()
        assert selectors.health()[-1].tone == "danger"

    def test_the_outside_sources_tell_when_they_answered_and_what_went_wrong(self, server):
        def said():
            return {part.name: part for part in selectors.health() if part.name in {"SaveTube", "yt-dlp"}}

        assert {part.text for part in said().values()} == {"Not asked in the last 7 days"}
        note_outcome("savetube", error_code="", took_s=0.2)
        note_outcome("ytdlp", error_code="bot_check", error_message="YouTube asks for a proof.", took_s=1.5)
        assert said()["SaveTube"].text == "Last answer now, no failure"
        assert said()["SaveTube"].tone == "success"
        assert said()["yt-dlp"].text == "No answer in the last 7 days, last failure now: YouTube asks for a proof"
        assert said()["yt-dlp"].tone == "warning"
        note_outcome("ytdlp", error_code="bot_check", error_message="", took_s=1.5, pause_s=30)
        assert said()["yt-dlp"].text.endswith("bot_check. Left alone for a while after failing again and again")
        assert said()["yt-dlp"].tone == "danger"
        set_provider_enabled("savetube", enabled=False, actor="test")
        assert list(said()) == ["yt-dlp"]

    def test_the_charts_get_the_last_hour_in_one_answer(self, viewer):
        body = viewer.get("/admin/overview/history").json()
        assert len(body["starts"]) == len(body["requests_per_s"]) == len(body["users"]) == 360

    def test_a_key_shows_what_it_did_in_a_day(self, server):
        for number, (hours, status) in enumerate([(1, 200), (2, 500), (30, 200)]):
            event(number, at=datetime.now(UTC) - timedelta(hours=hours), status=status).save()
        rebuild(utcnow() - timedelta(days=2), utcnow())
        usage = selectors.key_usage("abcdefgh")
        assert (usage.requests, usage.errors, usage.bytes_sent) == (2, 1, 2000)
        assert selectors.key_usage("unknown1").requests == 0

    def test_a_keys_chart_is_in_the_time_zone_that_was_chosen(self, viewer):
        key = create_key(name="first").document
        assert viewer.get(f"/admin/analytics/keys/{key.prefix}?range=7d").json()["zone"] == "UTC"
        viewer.get("/admin/analytics?zone=Asia/Tokyo")
        assert viewer.get(f"/admin/analytics/keys/{key.prefix}?range=7d").json()["zone"] == "Asia/Tokyo"
        assert viewer.get(f"/admin/analytics/keys/{key.prefix}?range=7d&zone=Here").status_code == 400

    def test_a_keys_page_says_that_its_figures_follow(self, viewer):
        key = create_key(name="new").document
        page = viewer.get(f"/admin/keys/{key.prefix}").content
        assert page.count(b"follows within three minutes") == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("From `.env` or `HOME`.", "From <code>.env</code> or <code>HOME</code>."),
        ("`<b>` & c", "<code>&lt;b&gt;</code> &amp; c"),
        ("5 ` and <b>", "5 ` and &lt;b&gt;"),
    ],
)
def test_what_stands_in_backticks_is_code(text, shown):
    assert with_code(text) == shown


class TestTheme:
    def test_is_kept_in_a_cookie_and_only_a_known_one(self, viewer):
        viewer.post("/admin/theme", {"theme": "light", "next": "/admin/keys"})
        assert b'data-bs-theme="light"' in viewer.get("/admin/keys").content
        viewer.post("/admin/theme", {"theme": '"><script>'})
        assert b'data-bs-theme="light"' in viewer.get("/admin/keys").content


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KB"), (1536, "1.5 KB"), (20 * 1024**3, "20 GB"), (123456789, "118 MB")],
)
def test_sizes_read_well(size, text):
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2, "now"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (-130, "in 2 min"),
        (7200, "2 h ago"),
        (90 * 86400, "31 Jan 2026"),
    ],
)
def test_times_read_well(seconds, text):
    assert relative(NOW - timedelta(seconds=seconds), NOW) == text
