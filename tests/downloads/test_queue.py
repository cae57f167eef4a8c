import threading

import pytest

from apps.downloads.documents import JobPriority, JobState, MediaJob
from apps.downloads.selectors import find_job
from apps.downloads.services import jobs
from apps.downloads.services.queue import BATCH_EVERY, pick_job
from tests.downloads.samples import audio_key, video_info

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")


def add(number: int, key_prefix: str, priority: JobPriority = JobPriority.INTERACTIVE) -> str:
    video_id = f"{key_prefix[:4]}{number:07}"
    return jobs.ensure_job(
        key=audio_key(video_id), info=video_info(video_id), key_prefix=key_prefix, priority=priority
    ).id


def picked(count: int) -> list[str]:
    """Whose jobs are picked next."""
    return [find_job(pick_job()).key_prefix for _ in range(count)]


def test_jobs_of_one_key_keep_their_order():
    made = [add(number, "greedy00") for number in range(3)]
    assert [pick_job() for _ in range(4)] == [*made, None]
    assert {job.state for job in MediaJob.objects} == {JobState.RUNNING}


def test_a_thousand_jobs_of_one_key_do_not_keep_another_keys_job_waiting():
    for number in range(60):
        add(number, "greedy00")
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


def test_many_workers_never_pick_the_same_job():
    made = {add(number, "greedy00") for number in range(20)}
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.extend([pick_job(), pick_job()])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert set(found) == made


def test_a_job_that_could_not_begin_waits_before_its_next_turn():
    job_id = add(0, "greedy00")
    assert pick_job() == job_id
    jobs.requeue_job(job_id, delay_s=60)
    assert find_job(job_id).state == JobState.QUEUED
    assert pick_job() is None
    jobs.requeue_job(job_id, delay_s=0)
    assert pick_job() == job_id
