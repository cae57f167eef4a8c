"""A real Celery worker, killed in the middle of a fetch and started again."""

import contextlib
import os
import subprocess
import sys

from apps.downloads.documents import JobState
from apps.downloads.selectors import find_job
from apps.telegram_cache.documents import Asset, AssetState
from tests.downloads.samples import audio_key
from tests.waiting import wait_until

MIB = 1024 * 1024
SLACK_BYTES = 512 * 1024  # on its way when the worker died, and the overlap that is compared


@contextlib.contextmanager
def worker(url: str):
    command = [sys.executable, "-m", "celery", "-A", "tests.downloads.fetch.worker_app", "worker"]
    command += ["--pool", "threads", "-c", "2", "-Q", "fetch,care", "-l", "warning"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen(command, env={**os.environ, "SAMPLE_URL": url})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_worker_killed_in_the_middle_goes_on_where_it_was(fetcher, origin, long_audio):
    url = origin.put("a", long_audio)
    origin.faults.add("a", bytes_per_s=1_000_000)
    job = fetcher.job(audio_key())
    with worker(url):
        wait_until(lambda: find_job(job.id).bytes_done > MIB, timeout_s=60)
    assert Asset.objects.get().state == AssetState.FETCHING
    with worker(url) as process:
        wait_until(lambda: find_job(job.id).state == JobState.DONE, timeout_s=60)
        process.terminate()
        assert process.wait(20) == 0
    asset = Asset.objects.get()
    assert (asset.state, asset.generation, asset.attempt) == (AssetState.READY, 1, 2)
    assert fetcher.read(asset) == long_audio
    assert origin.counts["a"] == 2
    assert origin.sent <= len(long_audio) + SLACK_BYTES


def test_a_worker_told_to_end_gives_its_fetch_back(fetcher, origin, long_audio):
    url = origin.put("a", long_audio)
    origin.faults.add("a", bytes_per_s=300_000)
    job = fetcher.job(audio_key())
    with worker(url) as process:
        wait_until(lambda: find_job(job.id).bytes_done, timeout_s=60)
        process.terminate()
        assert process.wait(10) == 0
    asset = Asset.objects.get()
    assert (asset.state, asset.lease_owner, find_job(job.id).active) == (AssetState.QUEUED, None, True)
