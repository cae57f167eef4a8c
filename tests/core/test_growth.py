"""Questions look at about as much as they give, however much else there is (by MongoDB's profiler)."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command

from apps.core.documents import AuditEntry
from apps.dashboard import selectors
from apps.dashboard.asset_list import ASSET_LIST
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.job_list import JOB_LIST
from apps.dashboard.key_list import KEY_LIST
from apps.dashboard.lists.page import read_page
from apps.dashboard.warm_up_lists import entry_list
from apps.dashboard.webhook_list import delivery_list
from apps.downloads.documents import Batch, JobPriority, JobState, MediaJob, WebhookDelivery
from apps.downloads.selectors import (
    active_assets,
    count_clips,
    list_jobs,
    unannounced_jobs,
    waits_in_another_batch,
)
from apps.downloads.services.queue import next_turn, pick_job
from apps.downloads.services.warm_rounds import advance_warm_ups
from apps.downloads.services.warm_ups import cancel_warm_up, make_warm_up
from apps.downloads.services.webhooks import _claim, _keys_due
from apps.downloads.warm_documents import WarmUpEntry
from apps.downloads.warm_selectors import bytes_fetched, is_fetched_elsewhere, waiting_entries, warm_counts
from apps.keys import selectors as key_selectors
from apps.keys.documents import ApiKey, User
from apps.keys.transfer import export_lines
from apps.telegram_cache.documents import Asset, MediaKind
from apps.telegram_cache.selectors import assets_to_refetch, list_assets, waiting_uploads
from apps.telegram_cache.services.care_records import queue_next_upload
from apps.telegram_cache.services.upload_records import free_dead_uploads
from tests.profiles import keys_looked_at, looked_at, profiled

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")
MANY = 400
PAGE = 51  # rows of a page, and one more
NOW = datetime.now(UTC)


def put_assets(state: str, first: int = 0, **fields: object) -> None:
    Asset._get_collection().insert_many(
        {
            "_id": f"{number:024}", "video_id": f"v{number:010}", "kind": ("audio", "video")[number % 2],
            "variant": "m4a", "state": state, "last_accessed_at": NOW - timedelta(minutes=number), **fields,
        }
        for number in range(first, first + MANY)
    )  # fmt: skip


def put_jobs(state: str, first: int = 0) -> None:
    MediaJob._get_collection().insert_many(
        {
            "_id": f"job{number}", "asset_id": f"{number:024}", "video_id": f"v{number:010}", "kind": "audio",
            "variant": "m4a", "state": state, "active": False, "key_prefix": "abcdefgh",
            "created_at": NOW - timedelta(minutes=number),
        }
        for number in range(first, first + MANY)
    )  # fmt: skip


class TestLists:
    @pytest.mark.parametrize("chosen", [{"state": "failed"}, {"kind": "video"}, {"state": "failed", "kind": "audio"}])
    def test_files(self, chosen):
        put_assets("cached")
        put_assets("failed", MANY)
        assert looked_at(lambda: read_page(ASSET_LIST, chosen)) == (PAGE, False)

    @pytest.mark.parametrize("chosen", [{"state": "failed"}, {"active": "no"}, {"state": "failed", "since": "7d"}])
    def test_jobs(self, chosen):
        put_jobs("done")
        put_jobs("failed", MANY)
        assert looked_at(lambda: read_page(JOB_LIST, chosen)) == (PAGE, False)

    @pytest.mark.parametrize("state", ["off", "revoked", "expired"])
    def test_keys_of_which_there_are_few(self, state):
        gone = {"active": False, "revoked_at": NOW}
        few = {"off": {"active": False}, "revoked": gone, "expired": {"active": True, "expires_at": NOW}}
        rows = [{"prefix": f"k{number:07}", "active": True, "created_at": NOW, "name": "k"} for number in range(MANY)]
        rows[200:] = [row | {"expires_at": NOW + timedelta(days=1)} for row in rows[200:]]
        ApiKey._get_collection().insert_many([*rows, *({"prefix": name, "name": "k"} | few[name] for name in few)])
        assert looked_at(lambda: read_page(KEY_LIST, {"state": state}))[0] == 1

    @pytest.mark.parametrize("chosen", [{"what": "login"}, {"about": "key"}, {"about": "key", "what": "login"}])
    def test_the_audit_log(self, chosen):
        others = [("user", f"user.{verb}") for verb in ("create", "role", "delete")]
        others += [("key", f"key.{verb}") for verb in ("create", "rotate", "delete")]
        for kind, action in (("user", "login.done"), ("key", "login.failed"), *others):
            AuditEntry._get_collection().insert_many(
                {"at": NOW - timedelta(minutes=n), "actor": "a", "action": action, "target_kind": kind, "words": []}
                for n in range(MANY)
            )
        assert looked_at(lambda: read_page(AUDIT_LIST, {**chosen, "since": "24h"})) == (PAGE, False)

    def test_the_audit_log_of_one_thing(self):
        AuditEntry._get_collection().insert_many(
            {"at": NOW - timedelta(minutes=n), "actor": "a", "action": "key.create", "target_kind": "key",
             "target_id": f"k{n % 40}", "words": ["key", "create"]}
            for n in range(MANY)
        )  # fmt: skip
        assert looked_at(lambda: selectors.history("key", "k7")) == (MANY // 40, False)

    @pytest.mark.parametrize("chosen", [{}, {"state": "delivered"}])
    def test_webhooks_of_a_key(self, chosen):
        WebhookDelivery._get_collection().insert_many(
            {"_id": str(n), "job_id": "j", "key_prefix": "abcdefgh", "state": "delivered", "created_at": NOW}
            for n in range(MANY)
        )
        assert looked_at(lambda: read_page(delivery_list("abcdefgh"), chosen)) == (PAGE, False)

    @pytest.mark.parametrize("chosen", [{}, {"state": "done"}])
    def test_what_is_in_a_warm_up(self, chosen):
        states = ("done", "waiting")
        WarmUpEntry._get_collection().insert_many(
            {"_id": f"w:{n}", "warm_up_id": "w", "number": n, "link": "l", "state": states[n % 2]} for n in range(MANY)
        )
        assert looked_at(lambda: read_page(entry_list("w"), chosen)) == (PAGE, False)


class TestEveryKeyAndUser:
    """Read in pages, each of which begins where the one before ended."""

    PAGE = 20
    ENDS = 4 * MANY // PAGE  # index keys read beside those of the rows: where a page begins, and ends

    @pytest.fixture(autouse=True)
    def _many(self, mongo, monkeypatch):
        monkeypatch.setattr(key_selectors, "PAGE_SIZE", self.PAGE)
        ApiKey._get_collection().insert_many(  # as an import makes them: many in one moment
            {"prefix": f"k{n:07}", "name": f"k{n}", "owner": f"u{n:03}", "active": True,
             "created_at": NOW - timedelta(hours=n // 150)}
            for n in range(MANY)
        )  # fmt: skip
        User._get_collection().insert_many({"username": f"u{n:03}", "active": True, "role": ""} for n in range(MANY))

    def test_keys_are_told_once_each_newest_first(self):
        assert [key.prefix for key in key_selectors.iterate_keys()] == [f"k{n:07}" for n in range(MANY)]

    def test_listing_keys(self):
        assert keys_looked_at(lambda: call_command("list_keys", stdout=StringIO())) <= MANY + self.ENDS

    def test_exporting_users_and_keys(self):
        assert keys_looked_at(lambda: deque(export_lines(), maxlen=0)) <= 2 * (MANY + self.ENDS)

    def test_listing_users_with_how_many_keys_they_have(self):
        assert len(profiled(lambda: call_command("users", "list", stdout=StringIO()))) <= MANY // self.PAGE + 3
        assert keys_looked_at(lambda: call_command("users", "list", stdout=StringIO())) <= 2 * MANY + self.ENDS


def test_jobs_of_one_key_in_one_state():
    put_jobs("done")
    put_jobs("failed", MANY)
    assert looked_at(lambda: list_jobs(key_prefix="abcdefgh", skip=0, limit=20, state=JobState.FAILED)) == (20, False)


def test_jobs_of_one_key():
    put_jobs("done")
    put_jobs("failed", MANY)
    MediaJob._get_collection().update_many(
        {"state": "failed"}, {"$set": {"key_prefix": "someelse", "joined_by": ["abcdefgh"]}}
    )
    put_jobs("done", 2 * MANY)
    others = {"video_id": {"$gte": f"v{2 * MANY:010}"}}
    MediaJob._get_collection().update_many(others, {"$set": {"key_prefix": "third"}})
    found, total = list_jobs(key_prefix="abcdefgh", skip=0, limit=20)
    assert (len(found), total) == (20, 2 * MANY)
    assert looked_at(lambda: list_jobs(key_prefix="abcdefgh", skip=0, limit=20)) == (20, False)


@pytest.mark.parametrize("kept_back", [[], ["nobody12"]])
def test_the_next_job_and_the_next_turn(kept_back):
    put_jobs("queued")
    MediaJob._get_collection().update_many({}, {"$set": {"active": True, "priority": "interactive", "turn": 5}})
    put_jobs("done", MANY)
    examined, sorts = looked_at(lambda: pick_job(behind=kept_back))
    assert examined <= 3  # the job, how many were picked, the turn that the queue has reached
    assert not sorts
    assert looked_at(lambda: next_turn("abcdefgh", JobPriority.INTERACTIVE))[0] <= 3
    assert looked_at(lambda: next_turn("newcomer", JobPriority.INTERACTIVE))[0] <= 1


def test_what_a_key_waits_for_among_all_that_it_ever_joined():
    put_jobs("done")
    put_jobs("queued", MANY)
    jobs = MediaJob._get_collection()
    jobs.update_many({"state": "done"}, {"$set": {"key_prefix": "someelse", "joined_by": ["abcdefgh"]}})
    jobs.update_many({"state": "queued"}, {"$set": {"key_prefix": "someelse", "active": True}})
    jobs.update_one({"_id": f"job{MANY}"}, {"$set": {"joined_by": ["others", "abcdefgh"]}})
    jobs.update_one({"_id": f"job{MANY + 1}"}, {"$set": {"key_prefix": "abcdefgh"}})
    assert active_assets("abcdefgh") == {f"{MANY:024}", f"{MANY + 1:024}"}
    assert looked_at(lambda: active_assets("abcdefgh")) == (2, False)


def test_whether_another_batch_of_a_key_has_a_job():
    Batch._get_collection().insert_many(
        {"_id": f"b{n}", "key_prefix": "abcdefgh", "open": False, "created_at": NOW, "entries": [{"job_id": f"job{n}"}]}
        for n in range(MANY)
    )
    assert waits_in_another_batch("job7", key_prefix="abcdefgh", but="b1")
    assert not waits_in_another_batch("job7", key_prefix="abcdefgh", but="b7")
    assert looked_at(lambda: waits_in_another_batch("job7", key_prefix="abcdefgh", but="b7")) == (1, False)


def test_what_is_still_to_be_announced_and_told():
    put_jobs("done")
    MediaJob._get_collection().update_many({}, {"$set": {"announced": True, "finished_at": NOW}})
    assert looked_at(lambda: unannounced_jobs(ended_before=NOW, limit=50)) == (0, False)
    WebhookDelivery._get_collection().insert_many(
        {"_id": str(n), "job_id": "j", "key_prefix": f"key{n % 2}", "state": "pending",
         "next_at": NOW + timedelta(days=n % 2)}
        for n in range(MANY)
    )  # fmt: skip
    assert _keys_due() == ["key0"]
    assert keys_looked_at(_keys_due) <= 4
    assert looked_at(lambda: _claim("key1")) == (0, False)
    assert looked_at(lambda: _claim("key0")) == (1, False)


def test_clips_of_a_key():
    put_jobs("done")
    assert count_clips(key_prefix="abcdefgh", since=NOW - timedelta(days=1), limit=9) == 0
    assert keys_looked_at(lambda: count_clips(key_prefix="abcdefgh", since=NOW - timedelta(days=1), limit=9)) <= 1


class TestWarmUps:
    """A round every few seconds looks at what it may begin, not at all that waits."""

    def test_what_is_tried_again_later_is_passed_over(self):
        self.put(not_before=NOW + timedelta(minutes=10))
        self.put(MANY)
        self.put(2 * MANY, not_before=NOW - timedelta(minutes=1))
        found = waiting_entries("w", now=NOW, limit=MANY + 20)
        assert [entry.number for entry in found] == [*range(2 * MANY, 3 * MANY), *range(MANY, MANY + 20)]
        assert looked_at(lambda: waiting_entries("w", now=NOW, limit=MANY + 20)) == (MANY + 20, False)
        assert looked_at(lambda: waiting_entries("w", now=NOW, limit=20)) == (20, False)

    def test_those_of_one_that_is_over_are_counted_once(self):
        links = [f"no link {number}" for number in range(MANY)]
        over = make_warm_up(name="over", kind=MediaKind.AUDIO, links=links, any_hour=True)
        advance_warm_ups()
        stopped = make_warm_up(name="stopped", kind=MediaKind.AUDIO, links=[f"video{n:06}" for n in range(MANY)])
        assert warm_counts([stopped.id])[stopped.id]["waiting"] == MANY
        cancel_warm_up(stopped.id)
        counts = warm_counts([over.id, stopped.id])
        assert (counts[over.id]["failed"], counts[stopped.id]["cancelled"]) == (MANY, MANY)
        assert [sum(of_one.values()) for of_one in counts.values()] == [MANY, MANY]
        assert keys_looked_at(lambda: warm_counts([over.id, stopped.id])) <= 2

    def test_whether_another_one_waits_for_the_same_job(self):
        self.put()
        WarmUpEntry._get_collection().update_many({}, {"$set": {"state": "fetching"}})
        WarmUpEntry._get_collection().update_many({"number": {"$gte": MANY - 2}}, {"$set": {"job_id": "j"}})
        last = WarmUpEntry.objects.get(number=MANY - 1)
        assert is_fetched_elsewhere(last)
        assert looked_at(lambda: is_fetched_elsewhere(last))[0] <= 2

    def test_the_bytes_of_a_day_come_from_an_index(self):
        self.put(started_at=NOW, size_bytes=7)
        self.put(MANY, started_at=NOW)  # not there yet
        assert bytes_fetched(since=NOW - timedelta(days=1)) == 7 * MANY
        assert looked_at(lambda: bytes_fetched(since=NOW - timedelta(days=1))) == (0, False)

    @staticmethod
    def put(first: int = 0, **fields: object) -> None:
        WarmUpEntry._get_collection().insert_many(
            {"_id": f"w:{n}", "warm_up_id": "w", "number": n, "link": "l", "state": "waiting", **fields}
            for n in range(first, first + MANY)
        )


def test_files_in_one_state():
    put_assets("cached")
    put_assets("failed", MANY)
    assert looked_at(lambda: list_assets(state="failed", limit=20)) == (20, False)


def test_the_next_upload_where_nothing_is_due():
    put_assets("ready", upload_retry_at=NOW + timedelta(days=1))
    put_assets("ready", MANY, upload_gave_up_at=NOW)
    assert looked_at(lambda: queue_next_upload(again_after_s=1)) == (0, False)


def test_uploads_whose_worker_may_have_died_among_those_that_wait():
    put_assets("uploading", upload_retry_at=NOW + timedelta(days=1))
    put_assets("uploading", MANY)
    Asset._get_collection().update_one({"_id": f"{7:024}"}, {"$set": {"upload_owner": "another-machine:1:2"}})
    assert looked_at(free_dead_uploads) == (1, False)


def test_uploads_that_wait():
    put_assets("ready")
    assert waiting_uploads() == (0, None)
    assert looked_at(waiting_uploads)[0] == 0
    put_assets("uploading", MANY, upload_waits_for="a bot", upload_retry_at=NOW)
    put_assets("cached", 2 * MANY, upload_waits_for="a bot", upload_retry_at=NOW - timedelta(days=1))
    assert waiting_uploads()[0] == MANY
    assert looked_at(waiting_uploads) == (1, False)


def test_what_is_to_be_fetched_anew_and_may_not_be_yet():
    put_assets("cached", refetch_reason="lost", retry_at=NOW + timedelta(days=1))
    put_assets("cached", MANY)
    assert looked_at(lambda: assets_to_refetch(5)) == (0, False)
    Asset._get_collection().update_one({"_id": f"{1:024}"}, {"$unset": {"retry_at": 1}})
    Asset._get_collection().update_one({"_id": f"{2:024}"}, {"$set": {"retry_at": NOW}})
    assert assets_to_refetch(5) == [f"{1:024}", f"{2:024}"]


def test_a_keys_page_reads_no_event():
    key = selectors.key_usage("abcdefgh")
    assert key.requests == 0
    assert looked_at(lambda: selectors.key_usage("abcdefgh")) == (0, False)
