"""``manage.py fetch`` as an operator uses it; the fetch itself is played by the test."""

from __future__ import annotations

import io
import json
import threading

import pytest
from django.core.management import CommandError, call_command

from apps.core.errors import UpstreamError, VideoPrivate
from apps.core.heartbeats import QUEUES, beat
from apps.downloads.documents import MediaJob
from apps.downloads.selectors import active_job
from apps.downloads.services.claims import commit_failed
from apps.downloads.services.info import record_info_error
from apps.downloads.services.jobs import finish_job, start_job, update_job
from apps.telegram_cache.documents import AssetKey, MediaKind
from tests.downloads.library import (
    AUDIO,
    CONTENT,
    TITLE,
    VIDEO,
    VIDEO_ID,
    begin_fetch,
    finish_fetch,
    known_info,
    put_hot,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")

LINK = f"https://youtu.be/{VIDEO_ID}?t=5"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str, err: io.StringIO | None = None) -> str:
    out = io.StringIO()
    call_command("fetch", *arguments, stdout=out, stderr=err or io.StringIO())
    return out.getvalue()


def refused(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    return caught.value


@pytest.fixture
def stored():
    known_info()
    put_hot(AUDIO)
    return put_hot(VIDEO)


class TestWhatIsThere:
    def test_is_described_and_nothing_is_fetched(self, stored):
        facts = json.loads(run(LINK, "--json"))
        assert (facts["status"], facts["title"], facts["quality"]) == (True, TITLE, "1080p")
        assert (facts["file_size"], facts["source"], facts["saved_as"]) == (len(CONTENT), "hot", None)
        assert TITLE in run(LINK)
        assert MediaJob.objects.count() == 0

    def test_is_audio_when_an_option_for_audio_is_given(self, stored):
        assert json.loads(run(LINK, "--format", "m4a", "--json"))["file_type"] == "audio"
        assert json.loads(run(LINK, "--kind", "audio", "--json"))["quality"] == "m4a"

    def test_is_saved_in_a_folder_under_its_title(self, stored, tmp_path):
        saved = json.loads(run(LINK, "-o", str(tmp_path), "--json"))["saved_as"]
        assert [str(path) for path in tmp_path.iterdir()] == [saved]
        assert saved.endswith(".mp4")
        assert (tmp_path / saved).read_bytes() == CONTENT

    def test_is_not_saved_where_that_cannot_be(self, stored, tmp_path):
        error = refused(LINK, "-o", str(tmp_path / "no" / "file.mp4"))
        assert str(error) == f"{tmp_path}/no/file.mp4: No such file or directory"


def test_nothing_is_fetched_that_cannot_be_saved(tmp_path):
    beat(QUEUES)
    known_info()
    (tmp_path / "file").touch()
    for folder, problem in (("no", "No such file or directory"), ("file", "Not a directory")):
        error = refused(LINK, "-o", str(tmp_path / folder / "file.mp4"), "--timeout", "0.1")
        assert str(error) == f"{tmp_path}/{folder}/file.mp4: {problem}"
    assert MediaJob.objects.count() == 0


class TestFetching:
    @pytest.fixture
    def workers(self):
        beat(QUEUES)

    def play_fetch(self) -> None:
        """What a worker does with the job that the command makes."""
        wait_until(lambda: active_job(AUDIO.asset_id))
        job = start_job(active_job(AUDIO.asset_id).id)
        claim, writer = begin_fetch(AUDIO, CONTENT[:1000], size_bytes=len(CONTENT))
        update_job(job.id, bytes_done=1000, bytes_total=len(CONTENT), stage="downloading", speed_bytes_per_s=2.0**21)
        wait_until(lambda: "MiB/s" in self.shown.getvalue() or not self.shown.isatty())
        finish_fetch(claim, writer, CONTENT)
        finish_job(job.id)

    @pytest.mark.parametrize("kind", [Terminal, io.StringIO])
    def test_is_watched_until_it_is_there(self, workers, kind):
        known_info()
        self.shown = kind()
        worker = threading.Thread(target=self.play_fetch)
        worker.start()
        words = run(LINK, "--format", "m4a", err=self.shown)
        worker.join()
        assert f"{len(CONTENT)} bytes" in words
        if self.shown.isatty():
            assert "of 1.2 MiB  2.0 MiB/s  downloading" in self.shown.getvalue()
            assert self.shown.getvalue().endswith("\r\x1b[K")
        else:
            assert self.shown.getvalue().startswith("queued\n")

    def test_a_failure_is_told_with_its_code_and_whether_it_may_work_later(self, workers):
        known_info()

        def fail() -> None:
            wait_until(lambda: active_job(VIDEO.asset_id))
            commit_failed(begin_fetch(VIDEO)[0], UpstreamError("It broke."))
            finish_job(active_job(VIDEO.asset_id).id, error=UpstreamError("It broke."))

        worker = threading.Thread(target=fail)
        worker.start()
        error = refused(LINK)
        worker.join()
        assert str(error).startswith("upstream_error: It broke. Try again in ")
        assert error.returncode == 75

    def test_waits_no_longer_than_it_is_told_to(self, workers):
        known_info()
        error = refused(LINK, "--timeout", "0.001")
        assert (error.returncode, "goes on" in str(error)) == (75, True)
        assert MediaJob.objects(active=True).count() == 1

    def test_says_so_when_no_worker_lives(self):
        known_info()
        error = refused(LINK)
        assert error.returncode == 75
        assert "manage.py up" in str(error)


class TestRefused:
    def test_a_video_that_cannot_be_had(self, capsys):
        record_info_error(VIDEO_ID, VideoPrivate())
        out = io.StringIO()
        with pytest.raises(CommandError, match="video_private") as caught:
            call_command("fetch", LINK, "--json", stdout=out, stderr=io.StringIO())
        assert caught.value.returncode == 1
        assert json.loads(out.getvalue())["error"] == "video_private"

    def test_what_is_no_link(self):
        assert "invalid_url" in str(refused("https://evil.example/x"))

    @pytest.mark.parametrize(
        "options",
        [("--format", "mp3", "--quality", "720"), ("--kind", "video", "--tags"), ("--kind", "audio", "--fps", "30")],
    )
    def test_options_of_the_other_kind(self, options):
        assert refused(LINK, *options).returncode == 2

    def test_nonsense_is_named(self):
        assert "quality" in str(refused(LINK, "--quality", "12x"))


def test_a_clip_is_an_asset_of_its_own():
    known_info()
    put_hot(AssetKey(VIDEO_ID, MediaKind.AUDIO, "mp3-128.clip-1000-3500"))
    facts = json.loads(run(LINK, "--format", "mp3", "--bitrate", "128", "--start", "1", "--end", "3.5", "--json"))
    assert facts["quality"] == "mp3-128.clip-1000-3500"
