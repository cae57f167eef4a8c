"""Lists that are fetched ahead of time: in quiet hours, within limits, behind everybody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from apps.core.clock import utcnow
from apps.core.errors import Conflict, InvalidParameter, NotFound, UpstreamError, VideoPrivate
from apps.downloads import warm_selectors
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.providers.listing import ListedVideo, Listing
from apps.downloads.services import warm_rounds, warming
from apps.downloads.services.claims import commit_failed
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import finish_job, refetch_asset
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.downloads.services.warm_limits import is_quiet, next_quiet, save_warm_limits, warm_limits
from apps.downloads.services.warm_rounds import advance_warm_ups
from apps.downloads.services.warm_ups import cancel_warm_up, make_warm_up, pause_warm_up, resume_warm_up
from apps.downloads.warm_documents import WarmState, WarmUp, WarmUpEntry
from apps.downloads.warm_selectors import find_warm_up, recent_warm_counts, warm_counts
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.downloads.library import CONTENT, begin_fetch, known_info, put_hot
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")

IDS = [f"video{number:06}" for number in range(6)]
PLAYLIST = "PLabcdefghijkl"


def key_of(video_id: str) -> AssetKey:
    return AssetKey(video_id, MediaKind.AUDIO, "m4a")


def warm_up(links=(), **fields) -> WarmUp:
    return make_warm_up(name="a list", kind=MediaKind.AUDIO, links=list(links), any_hour=True, **fields)


def states(made: WarmUp) -> list[str]:
    return [entry.state for entry in WarmUpEntry.objects(warm_up_id=made.id).order_by("number")]


def finish(video_id: str) -> None:
    """What a worker does with the job of this video."""
    put_hot(key_of(video_id))
    finish_job(MediaJob.objects.get(video_id=video_id, active=True).id)


@pytest.fixture
def _known(mongo):
    for video_id in IDS:
        known_info(video_id)


def test_pages_that_are_asked_often_count_a_large_list_now_and_then(monkeypatch):
    monkeypatch.setattr(warm_selectors, "FEW", 3)
    clock = SimpleNamespace(now=time.monotonic())
    monkeypatch.setattr(warm_selectors, "time", SimpleNamespace(monotonic=lambda: clock.now))
    large, small = warm_up(IDS[:4]), warm_up(IDS[:3])
    seen = []
    for past_s in (0, warm_selectors.RECENT_S - 1, 1):
        clock.now += past_s
        seen.append([counts["waiting"] for counts in recent_warm_counts([large.id, small.id]).values()])
        WarmUpEntry.objects(warm_up_id__in=[large.id, small.id]).update(state="failed")
    assert seen == [[4, 3], [4, 0], [0, 0]]
    assert warm_counts([large.id])[large.id]["failed"] == 4


@pytest.mark.usefixtures("_known")
class TestRounds:
    def test_fetches_a_few_at_once_behind_everybody_else_until_all_is_there(self):
        save_warm_limits(at_once=2)
        made = warm_up(IDS[:3])
        advance_warm_ups()
        advance_warm_ups()
        assert states(made) == ["fetching", "fetching", "waiting"]
        assert {(job.priority, job.key_prefix) for job in MediaJob.objects} == {(JobPriority.BATCH, "")}
        finish(IDS[0])
        advance_warm_ups()
        assert states(made) == ["done", "fetching", "fetching"]
        finish(IDS[1])
        finish(IDS[2])
        advance_warm_ups()
        ended = find_warm_up(made.id)
        assert (ended.state, ended.finished_at is not None) == (WarmState.DONE, True)
        assert warm_counts([made.id])[made.id]["done"] == 3
        assert WarmUpEntry.objects.first().size_bytes == len(CONTENT)

    def test_what_is_there_already_takes_no_place(self):
        save_warm_limits(at_once=1, max_per_hour=1)
        for video_id in IDS[:3]:
            put_hot(key_of(video_id))
        made = warm_up(IDS[:4])
        advance_warm_ups()
        assert states(made) == ["done", "done", "done", "fetching"]

    def test_begins_nothing_outside_quiet_hours(self, monkeypatch):
        made = make_warm_up(name="later", kind=MediaKind.AUDIO, links=IDS[:1])
        monkeypatch.setattr(warm_rounds, "is_quiet", lambda *_: False)
        advance_warm_ups()
        assert states(made) == ["waiting"]
        monkeypatch.setattr(warm_rounds, "is_quiet", lambda *_: True)
        advance_warm_ups()
        assert states(made) == ["fetching"]

    def test_keeps_to_the_number_an_hour(self):
        save_warm_limits(at_once=5, max_per_hour=2)
        made = warm_up(IDS[:3])
        advance_warm_ups()
        assert states(made) == ["fetching", "fetching", "waiting"]
        WarmUpEntry.objects(started_at__ne=None).update(set__started_at=utcnow() - timedelta(minutes=61))
        advance_warm_ups()
        assert states(made) == ["fetching"] * 3

    def test_keeps_to_the_bytes_a_day(self):
        save_warm_limits(at_once=1, max_bytes_per_day=len(CONTENT))
        made = warm_up(IDS[:2])
        advance_warm_ups()
        finish(IDS[0])
        advance_warm_ups()
        assert states(made) == ["done", "waiting"]
        WarmUpEntry.objects(started_at__ne=None).update(set__started_at=utcnow() - timedelta(hours=25))
        advance_warm_ups()
        assert states(made) == ["done", "fetching"]

    def test_a_failure_that_may_pass_is_tried_again_later_three_times_in_all(self):
        made = warm_up(IDS[:1])
        for tries in (1, 2, 3):
            advance_warm_ups()
            job = MediaJob.objects.get(active=True)
            commit_failed(begin_fetch(key_of(IDS[0]))[0], UpstreamError("It broke."))
            finish_job(job.id, error=UpstreamError("It broke."))
            advance_warm_ups()
            entry = WarmUpEntry.objects.get()
            assert (entry.tries, entry.error_message) == (tries, "It broke.")
            assert entry.state == ("waiting" if tries < 3 else "failed")
            WarmUpEntry.objects.update(set__not_before=utcnow())
            MediaJob.objects.delete()
            Asset.objects.update(set__retry_at=utcnow())
        assert find_warm_up(made.id).state == WarmState.DONE

    def test_what_cannot_be_had_and_what_is_no_link_fails_alone(self):
        record_info_error(IDS[1], VideoPrivate())
        made = warm_up([IDS[0], IDS[1], "https://evil.example/x"])
        advance_warm_ups()
        assert states(made) == ["fetching", "failed", "failed"]
        assert [entry.error_code for entry in WarmUpEntry.objects(state="failed").order_by("number")] == [
            "video_private",
            "invalid_url",
        ]

    def test_waits_for_metadata_in_a_place_of_its_own(self):
        save_warm_limits(at_once=1)
        made = warm_up(["unknown0001", IDS[0]])
        advance_warm_ups()
        assert states(made) == ["waiting", "waiting"]
        known_info("unknown0001")
        advance_warm_ups()
        assert states(made) == ["fetching", "waiting"]
        finish("unknown0001")
        WarmUpEntry.objects(video_id=IDS[0]).update(set__asked_at=utcnow() - timedelta(hours=1))
        advance_warm_ups()
        assert states(made) == ["done", "fetching"]


@pytest.mark.usefixtures("_known")
class TestSteering:
    def test_a_paused_one_begins_nothing_until_it_is_resumed(self):
        made = warm_up(IDS[:1])
        pause_warm_up(made.id)
        advance_warm_ups()
        assert states(made) == ["waiting"]
        with pytest.raises(Conflict):
            pause_warm_up(made.id)
        resume_warm_up(made.id)
        advance_warm_ups()
        assert states(made) == ["fetching"]

    def test_what_a_paused_one_was_fetching_is_still_noted(self):
        made = warm_up(IDS[:1])
        advance_warm_ups()
        pause_warm_up(made.id)
        finish(IDS[0])
        advance_warm_ups()
        assert (states(made), find_warm_up(made.id).state) == (["done"], WarmState.PAUSED)

    def test_cancelling_stops_fetches_that_nobody_else_waits_for(self):
        save_warm_limits(at_once=2)
        made, other = warm_up(IDS[:3]), warm_up(IDS[:1])
        save_warm_limits(at_once=4)
        advance_warm_ups()
        assert states(other) == ["fetching"]
        cancel_warm_up(made.id)
        assert states(made) == ["cancelled"] * 3
        assert {job.video_id for job in MediaJob.objects(active=True)} == {IDS[0]}
        cancel_warm_up(other.id)
        assert {job.state for job in MediaJob.objects} == {JobState.CANCELLED}
        with pytest.raises(Conflict):
            cancel_warm_up(made.id)

    def test_cancelling_leaves_a_fetch_that_a_key_waits_for(self):
        made = warm_up(IDS[:1])
        advance_warm_ups()
        MediaJob.objects.update(set__joined_by=["somekey1"])
        cancel_warm_up(made.id)
        assert MediaJob.objects.get().active

    @pytest.mark.parametrize("first", ["warm-up", "server"])
    def test_cancelling_leaves_what_the_server_fetches_again_for_itself(self, first, hot_root):
        asset = put_hot(key_of(IDS[0]))
        if first == "server":
            refetch_asset(asset.id)
        else:
            Asset.objects(id=asset.id).update(set__state="absent")
        made = warm_up(IDS[:1])
        advance_warm_ups()
        job = MediaJob.objects.get(active=True)
        assert refetch_asset(asset.id).id == job.id
        cancel_warm_up(made.id)
        assert (states(made), MediaJob.objects.get(id=job.id).active) == (["cancelled"], True)

    def test_cancelling_leaves_what_cache_warm_waits_for(self):
        waits = warming.warm(IDS[:1], kind=MediaKind.AUDIO, wish=None, max_active=1, timeout_s=20)
        with ThreadPoolExecutor(1) as other:
            there = other.submit(list, waits)
            wait_until(lambda: MediaJob.objects(active=True, asked_by="").count())
            made = warm_up(IDS[:1])
            advance_warm_ups()
            cancel_warm_up(made.id)
            assert (states(made), MediaJob.objects.get().active) == (["cancelled"], True)
            finish(IDS[0])
            assert there.result(20)[0].problem == ""

    def test_an_unknown_one_is_not_found(self):
        with pytest.raises(NotFound):
            pause_warm_up("nothing")

    def test_an_empty_list_is_refused(self):
        with pytest.raises(InvalidParameter):
            warm_up([])


class TestPlaylist:
    def listed(self, page: int, count: int, *, has_more: bool) -> None:
        videos = tuple(ListedVideo(video_id=f"{page:07}{number:04}", live=number == 0) for number in range(count))
        lookup = Lookup(kind=LookupKind.PLAYLIST, subject=PLAYLIST, detail=f"{page}:50")
        answer_lookup(lookup, lambda *_: Listing(has_more=has_more, videos=videos).model_dump(mode="json"))

    def test_is_read_page_by_page_without_live_streams(self):
        made = warm_up(playlist_id=PLAYLIST)
        advance_warm_ups()
        assert (find_warm_up(made.id).total, find_warm_up(made.id).reading) == (0, True)
        self.listed(1, 50, has_more=True)
        self.listed(2, 3, has_more=False)
        advance_warm_ups()
        advance_warm_ups()
        read = find_warm_up(made.id)
        assert (read.total, read.reading, read.state) == (51, False, WarmState.RUNNING)
        numbers = [entry.number for entry in WarmUpEntry.objects.order_by("number")]
        assert numbers == list(range(51))

    @pytest.mark.parametrize("told", [False, True])
    def test_a_round_that_was_killed_in_a_page_is_made_good_by_the_next(self, told, monkeypatch):
        def die(*args, **noted):
            if told:
                real_update(*args, **noted)
            raise SystemExit

        ahead = warm_up(["unknown0001"])
        made = warm_up(playlist_id=PLAYLIST)
        self.listed(1, 50, has_more=True)
        self.listed(2, 3, has_more=False)
        collection = type(WarmUp._get_collection())
        real_update = collection.update_one
        with monkeypatch.context() as patch:
            patch.setattr(collection, "update_one", lambda self, *args, **noted: die(self, *args, **noted))
            with pytest.raises(SystemExit):
                warm_rounds._read_playlist(find_warm_up(made.id))
        assert WarmUpEntry.objects(warm_up_id=made.id).count() == 49
        advance_warm_ups()
        advance_warm_ups()
        entries = WarmUpEntry.objects(warm_up_id=made.id).order_by("number")
        assert [entry.number for entry in entries] == list(range(51))
        assert len({entry.video_id for entry in entries}) == 51
        assert (find_warm_up(made.id).total, find_warm_up(made.id).reading) == (51, False)
        assert states(ahead) == ["waiting"]

    def test_a_fault_in_one_leaves_the_others_alone(self, monkeypatch):
        known_info(IDS[0])
        broken, fine = warm_up(playlist_id=PLAYLIST), warm_up(IDS[:1])

        def fail(warm_up):
            raise ZeroDivisionError

        monkeypatch.setattr(warm_rounds, "_read_playlist", fail)
        advance_warm_ups()
        assert (states(fine), find_warm_up(broken.id).reading) == (["fetching"], True)

    def test_one_that_does_not_exist_ends_with_its_problem(self):
        made = warm_up(playlist_id=PLAYLIST)
        lookup = Lookup(kind=LookupKind.PLAYLIST, subject=PLAYLIST, detail="1:50")

        def fail(*_):
            raise NotFound("There is no such list.")

        answer_lookup(lookup, fail)
        advance_warm_ups()
        advance_warm_ups()
        ended = find_warm_up(made.id)
        assert (ended.state, ended.problem) == (WarmState.DONE, "There is no such list.")


class TestLimits:
    def at(self, hour: int, minute: int = 0) -> datetime:
        return datetime(2026, 1, 15, hour, minute, tzinfo=UTC)

    def test_quiet_hours_may_go_over_midnight_in_their_time_zone(self):
        limits = save_warm_limits(quiet_from="23:00", quiet_until="06:00", time_zone="Europe/Berlin")
        quiet = {hour for hour in range(24) if is_quiet(limits, self.at(hour))}
        assert quiet == {22, 23, 0, 1, 2, 3, 4}  # an hour behind Berlin in winter
        assert next_quiet(limits, self.at(12)) == self.at(22)
        assert next_quiet(limits, self.at(23)) == self.at(23)

    def test_the_same_time_twice_is_every_hour(self):
        limits = save_warm_limits(quiet_from="05:00", quiet_until="05:00")
        assert all(is_quiet(limits, self.at(hour)) for hour in range(24))

    def test_of_many_who_saw_the_same_one_changes_them(self):
        for seen in ({"at_once": 2, "time_zone": "UTC"}, {"at_once": 7, "time_zone": "UTC"}):
            if seen["at_once"] == 7:
                save_warm_limits(at_once=7)

            def change(number: int, seen: dict[str, object] = seen) -> bool:
                try:
                    save_warm_limits(at_once=number, time_zone="UTC", seen=seen)
                except Conflict:
                    return False
                return True

            with ThreadPoolExecutor(8) as pool:
                outcomes = list(pool.map(change, range(10, 18)))
            assert sum(outcomes) == 1
            assert warm_limits().at_once == 10 + outcomes.index(True)

    def test_defaults_hold_until_others_are_saved(self):
        assert (warm_limits().quiet_from, warm_limits().at_once) == ("01:00", 2)
        save_warm_limits(at_once=7)
        assert (warm_limits().quiet_from, warm_limits().at_once) == ("01:00", 7)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("quiet_from", "25:00"),
            ("quiet_until", "6"),
            ("time_zone", "Mars/Base"),
            ("at_once", 0),
            ("max_per_hour", 0),
        ],
    )
    def test_nonsense_is_named_and_not_saved(self, name, value):
        with pytest.raises(InvalidParameter) as caught:
            save_warm_limits(**{name: value})
        assert caught.value.context["parameter"] == name
        assert getattr(warm_limits(), name) != value
