import threading

import pytest

from apps.core.redis import redis_client
from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.selectors import find_job
from apps.downloads.services import jobs, queue
from apps.downloads.services.joining import move_up
from apps.downloads.services.queue import BATCH_EVERY, next_job, pick_job
from apps.downloads.services.sweep import FETCH_QUEUE
from apps.downloads.services.turns import pass_turn_on
from tests.downloads.samples import audio_key, known_key, video_info

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")


def add(number: int, key_prefix: str, priority: JobPriority = JobPriority.INTERACTIVE) -> str:
    video_id = f"{key_prefix[:4]}{number:07}"
    return jobs.ensure_job(
        key=audio_key(video_id), info=video_info(video_id), key_prefix=known_key(key_prefix), priority=priority
    ).id


def picked(count: int) -> list[str]:
    """Whose jobs are picked next."""
    return [find_job(pick_job()[0]).key_prefix for _ in range(count)]


def test_jobs_of_one_key_keep_their_order():
    made = [add(number, "greedy00") for number in range(3)]
    assert [pick_job()[0] for _ in range(4)] == [*made, None]
    assert {job.state for job in MediaJob.objects} == {JobState.RUNNING}


def test_a_thousand_jobs_of_one_key_do_not_keep_another_keys_job_waiting():
    first = find_job(add(0, "greedy00"))
    MediaJob.objects.insert(  # as if it had asked for 999 more
        [
            MediaJob(asset_id=f"greedy{number}", video_id="x", kind="audio", variant="m4a", key_prefix="greedy00",
                     turn=first.turn + number)
            for number in range(1, 1000)
        ]
    )  # fmt: skip
    picked(10)
    add(0, "modest00")
    assert "modest00" in picked(2)


def test_keys_take_turns():
    for number in range(4):
        add(number, "greedy00")
    for number in range(4):
        add(number, "modest00")
    assert sorted(picked(2)) == sorted(picked(2)) == ["greedy00", "modest00"]


def test_who_waits_goes_before_a_batch_which_still_gets_its_share():
    for number in range(3):
        add(number, "batchkey", JobPriority.BATCH)
    for number in range(BATCH_EVERY):
        add(number, "waiting0")
    order = picked(BATCH_EVERY + 3)
    assert order.count("batchkey") == 3
    assert order[: BATCH_EVERY - 1] == ["waiting0"] * (BATCH_EVERY - 1)
    assert order[BATCH_EVERY - 1] == "batchkey"


def join(job_id: str, key_prefix: str) -> None:
    move_up(find_job(job_id), key_prefix=key_prefix)


def test_who_joins_a_job_far_back_in_anothers_line_brings_the_better_turn():
    greedy = [add(number, "greedy00") for number in range(20)]
    join(greedy[-1], "modest00")
    assert pick_job()[0] in (greedy[0], greedy[-1])
    assert pick_job()[0] in (greedy[0], greedy[-1])


def test_who_joins_an_early_job_does_not_move_it_back():
    add(0, "modest00")
    add(1, "modest00")
    early = add(0, "greedy00")
    before = find_job(early).turn
    join(early, "modest00")
    assert (find_job(early).turn, find_job(early).moved_up_by) == (before, None)


def test_joining_many_jobs_gives_a_key_no_more_than_its_share():
    greedy = [add(number, "greedy00") for number in range(30)]
    for job_id in reversed(greedy[10:]):
        join(job_id, "joiner00")
    moved = [job.turn for job in MediaJob.objects(moved_up_by="joiner00")]
    assert len(set(moved)) == len(moved) > 10  # one after the other, as jobs of its own would be
    other = add(0, "modest00")
    assert other in [pick_job()[0] for _ in range(3)]


def test_joining_again_and_again_changes_nothing():
    greedy = [add(number, "greedy00") for number in range(5)]
    join(greedy[-1], "modest00")
    turn = find_job(greedy[-1]).turn
    for _ in range(3):
        join(greedy[-1], "modest00")
    assert find_job(greedy[-1]).turn == turn


def test_many_workers_never_pick_the_same_job():
    made = {add(number, "greedy00") for number in range(20)}
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.extend([pick_job()[0], pick_job()[0]])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert set(found) == made


def test_a_job_that_could_not_begin_waits_before_its_next_turn():
    job_id = add(0, "greedy00")
    assert pick_job()[0] == job_id
    jobs.requeue_job(job_id, delay_s=60)
    assert find_job(job_id).state == JobState.QUEUED
    assert pick_job()[0] is None
    jobs.requeue_job(job_id, delay_s=0)
    assert pick_job()[0] == job_id


class TestSlots:
    """The process of these tests stands for a worker with WORKER_THREADS threads."""

    @pytest.fixture(autouse=True)
    def _two_slots(self, monkeypatch):
        slots = threading.BoundedSemaphore(2)
        monkeypatch.setattr(queue, "_batch_slots", lambda: slots)
        monkeypatch.setattr(queue, "_half", lambda: 2)

    def test_batches_leave_half_of_the_threads_to_those_who_wait(self):
        batch = [add(number, "batchkey", JobPriority.BATCH) for number in range(3)]
        with next_job() as first, next_job() as second, next_job() as third:
            assert [first, second, third] == [*batch[:2], None]
            waiting = add(0, "waiting0")
            with next_job() as fourth:
                assert fourth == waiting
        with next_job() as freed:
            assert freed == batch[2]

    def test_one_key_begins_no_more_than_half_while_another_key_waits(self):
        greedy = [add(number, "greedy00") for number in range(6)]
        with next_job() as first, next_job() as second:
            assert [first, second] == greedy[:2]
            MediaJob.objects(id__in=greedy).update(set__turn=0)  # before everybody else's
            modest = add(0, "modest00")
            batch = add(0, "batchkey", JobPriority.BATCH)
            with next_job() as third, next_job() as fourth, next_job() as fifth:
                assert {third, fourth} == {modest, batch}
                assert fifth in greedy  # nobody else waits: no thread stays idle

    def test_a_job_that_another_key_moved_up_is_that_keys(self):
        greedy = [add(number, "greedy00") for number in range(6)]
        with next_job(), next_job():
            join(greedy[5], "modest00")
            MediaJob.objects(id=greedy[5]).update(set__turn=1000)
            with next_job() as third, next_job() as fourth:
                assert (third, fourth) == (greedy[5], greedy[2])

    def test_a_key_may_begin_more_again_when_its_fetches_have_ended(self):
        greedy = [add(number, "greedy00") for number in range(3)]
        add(0, "modest00")
        MediaJob.objects(id__in=greedy).update(set__turn=0)
        with next_job(), next_job():
            pass
        with next_job() as third:
            assert third == greedy[2]

    def test_people_may_use_every_thread(self):
        made = [add(number, "waiting0") for number in range(4)]
        with next_job() as first, next_job() as second, next_job() as third, next_job() as fourth:
            assert [first, second, third, fourth] == made

    def test_many_threads_never_hold_more_than_the_slots(self):
        for number in range(12):
            add(number, "batchkey", JobPriority.BATCH)
        all_there, done = threading.Barrier(6), []

        def work() -> None:
            with next_job() as job_id:
                done.append(job_id)
                all_there.wait()

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([job_id for job_id in done if job_id]) == 2
        assert MediaJob.objects(state=JobState.RUNNING.value).count() == 2

    def test_the_turn_is_passed_on_when_a_fetch_ends(self):
        add(0, "batchkey", JobPriority.BATCH)
        redis_client().delete(FETCH_QUEUE)
        pass_turn_on()
        assert redis_client().llen(FETCH_QUEUE) == 1
        pick_job()
        pass_turn_on()
        assert redis_client().llen(FETCH_QUEUE) == 1

    def test_who_waits_now_for_a_job_of_a_batch_brings_it_a_turn(self):
        job = find_job(add(0, "batchkey", JobPriority.BATCH))
        redis_client().delete(FETCH_QUEUE)
        move_up(job, key_prefix="batchkey")
        move_up(find_job(job.id), key_prefix="batchkey")
        assert redis_client().llen(FETCH_QUEUE) == 1
        assert pick_job(batches=False)[0] == job.id
