import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from apps.core.redis import redis_client
from apps.core.websockets import BUSY
from apps.downloads.consumers import NORMAL, NOT_FOUND, REFUSED, JobConsumer
from apps.downloads.services import jobs
from tests.core.serving import closed_with, serving
from tests.downloads.library import VIDEO_ID, known_info
from tests.waiting import wait_until
from ytserver.asgi import application


@pytest.fixture(scope="module")
def url():
    with serving(application, ws="websockets-sansio") as address:
        yield address.replace("http", "ws", 1)


@pytest.fixture
def job_id(api) -> str:
    known_info()
    return api.get("audio", url=VIDEO_ID).json()["job"]["id"]


def test_tells_progress_until_the_job_ends_and_closes(url, api, job_id):
    with connect(f"{url}/ws/jobs/{job_id}", additional_headers={"X-API-Key": api.key}) as socket:
        first = json.loads(socket.recv(timeout=60))
        assert (first["id"], first["state"], first["progress"]) == (job_id, "queued", 0.0)
        jobs.start_job(job_id)
        jobs.update_job(job_id, bytes_done=50, bytes_total=200, stage="downloading")
        jobs.publish(f"asset:{jobs.find_job(job_id).asset_id}")
        wait_until(lambda: json.loads(socket.recv(timeout=60))["progress"] == 25.0)
        jobs.finish_job(job_id)
        wait_until(lambda: json.loads(socket.recv(timeout=60))["state"] == "done")
        assert closed_with(socket) == NORMAL


def test_the_id_alone_is_enough_from_any_page(url, job_id):
    with connect(f"{url}/ws/jobs/{job_id}", origin="https://elsewhere.example") as socket:
        assert json.loads(socket.recv(timeout=60))["id"] == job_id
        jobs.cancel_job(job_id)
        assert closed_with(socket) == NORMAL


def test_a_finished_job_is_told_once(url, job_id):
    jobs.finish_job(job_id)
    with connect(f"{url}/ws/jobs/{job_id}") as socket:
        assert json.loads(socket.recv(timeout=60))["state"] == "done"
        assert closed_with(socket) == NORMAL


def test_an_unknown_job_a_bad_key_and_another_keys_job_are_refused(url, api, other_api, job_id):
    with connect(f"{url}/ws/jobs/{'x' * 22}") as socket:
        assert closed_with(socket) == NOT_FOUND
    with connect(f"{url}/ws/jobs/{job_id}?api_key=nonsense") as socket:
        assert closed_with(socket) == REFUSED
    with connect(f"{url}/ws/jobs/{job_id}?api_key={other_api.key}") as socket:
        assert closed_with(socket) == NOT_FOUND


def test_wrong_keys_count_against_the_address_as_everywhere(url, job_id):
    with connect(f"{url}/ws/jobs/{job_id}?api_key=nonsense") as socket:
        assert closed_with(socket) == REFUSED
    assert redis_client().hget("yt:refused:127.0.0.1", "total") == b"1"


def test_there_is_a_bound_and_closed_sockets_make_room(url, job_id, monkeypatch):
    monkeypatch.setattr("apps.downloads.consumers.MAX_OPEN", 1)
    with connect(f"{url}/ws/jobs/{job_id}") as first:
        first.recv(timeout=60)
        with connect(f"{url}/ws/jobs/{job_id}") as second:
            assert closed_with(second) == BUSY
    wait_until(lambda: JobConsumer.open_now == 0)
    with connect(f"{url}/ws/jobs/{job_id}") as third:
        assert json.loads(third.recv(timeout=60))["id"] == job_id


def test_when_redis_goes_away_nothing_is_left_behind(url, job_id, channels_away, monkeypatch):
    running = []

    async def follow(self):
        running.append(self)
        try:
            await asyncio.Event().wait()
        finally:
            running.remove(self)

    monkeypatch.setattr(JobConsumer, "_follow", follow)
    for _ in range(3):
        with connect(f"{url}/ws/jobs/{job_id}") as socket, pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)
    wait_until(lambda: JobConsumer.open_now == 0 and not running)


def test_a_stranger_s_guesses_of_ids_count_against_the_address(url, job_id, api):
    with connect(f"{url}/ws/jobs/{'x' * 22}", additional_headers={"X-API-Key": api.key}) as socket:
        assert closed_with(socket) == NOT_FOUND
    assert not redis_client().exists("yt:refused:127.0.0.1")
    with connect(f"{url}/ws/jobs/{'x' * 22}") as socket:
        assert closed_with(socket) == NOT_FOUND
    assert redis_client().hget("yt:refused:127.0.0.1", "total") == b"1"
