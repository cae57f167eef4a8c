"""The yt-dlp provider: its own extractor against the YouTube stand-in, and processes that misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from apps.core.errors import (
    ApiError,
    QualityUnavailable,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    VideoPrivate,
)
from apps.core.outbound_aiohttp import guarded_aiohttp_session
from apps.downloads.providers import ytdlp_pool
from apps.downloads.providers.failures import OwnQueueFull
from apps.downloads.providers.ytdlp import YtDlpProvider, kept_options, make_options
from apps.downloads.providers.ytdlp_pool import ChildPool
from apps.telegram_cache.documents import AssetKey
from tests.standins.youtube import YouTubeStandIn
from tests.waiting import wait_until

ID = "dQw4w9WgXcQ"
TIMEOUT_S = 30.0


async def fetch(plan_file: Any) -> tuple[int, bytes]:
    options = {"proxy": plan_file.proxy, "headers": plan_file.headers}
    async with (
        guarded_aiohttp_session() as session,
        session.get(plan_file.url, ssl=plan_file.verify_tls, **options) as response,
    ):
        return response.status, await response.read()


class TestResolve:
    def test_gives_what_youtube_says(self, ytdlp: YtDlpProvider) -> None:
        info = ytdlp.resolve(ID, timeout_s=TIMEOUT_S)
        assert (info.video_id, info.provider, info.title) == (ID, "ytdlp", f"Video {ID}")
        assert (info.uploader, info.description) == ("Test Channel", f"About Video {ID}")
        assert (info.video_heights, info.audio_formats) == ((360, 240, 144), ("m4a", "opus", "mp3", "flac"))
        assert (info.duration_s, info.view_count) == (6.0, 12345)
        assert {entry.format_id for entry in info.formats} == {"18", "133", "134", "140", "160", "251"}
        assert all(entry.size_bytes and not entry.size_is_estimate for entry in info.formats)

    @pytest.mark.parametrize(
        ("video_id", "code"),
        [
            ("private0001", "video_private"),
            ("members0001", "video_private"),
            ("agelimit001", "age_restricted"),
            ("removed0001", "video_unavailable"),
            ("geoblock001", "geo_blocked"),
            ("upcoming001", "live_not_supported"),
            ("livenow0001", "live_not_supported"),
            ("drmlocked01", "drm_protected"),
            ("botcheck001", "bot_check"),
            ("limited0001", "upstream_error"),
        ],
    )
    def test_every_state_is_its_error(self, ytdlp: YtDlpProvider, video_id: str, code: str) -> None:
        with pytest.raises(ApiError) as caught:
            ytdlp.resolve(video_id, timeout_s=TIMEOUT_S)
        assert caught.value.code == code

    def test_a_plan_raises_the_same_errors(self, ytdlp: YtDlpProvider) -> None:
        with pytest.raises(VideoPrivate):
            ytdlp.plan(AssetKey("private0001", "audio", "m4a"), timeout_s=TIMEOUT_S)

    def test_age_limits_are_seen_without_the_embed_page_too(
        self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn
    ) -> None:
        youtube.faults.add("embed", status=404, times=9)
        with pytest.raises(ApiError) as caught:
            ytdlp.resolve("agelimit001", timeout_s=TIMEOUT_S)
        assert caught.value.code == "age_restricted"

    def test_too_many_requests_is_retryable(self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn) -> None:
        youtube.faults.add("watch", status=429, times=99)
        youtube.faults.add("player", status=429, times=99)
        with pytest.raises(UpstreamError) as caught:
            ytdlp.resolve(ID, timeout_s=TIMEOUT_S)
        assert caught.value.retry_after_s == 60

    def test_a_silent_youtube_costs_no_more_than_the_time_given(
        self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn
    ) -> None:
        ytdlp.resolve(ID, timeout_s=TIMEOUT_S)
        youtube.faults.add("watch", delay_s=3600, times=9)
        with pytest.raises(UpstreamTimeout):
            ytdlp.resolve(ID, timeout_s=0.5)

    def test_many_threads_share_a_few_processes(self, ytdlp: YtDlpProvider) -> None:
        ids = [f"thread{number:05}" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            titles = list(pool.map(lambda video_id: ytdlp.resolve(video_id, timeout_s=60).title, ids))
        assert titles == [f"Video {video_id}" for video_id in ids]
        assert len(ytdlp._pool._idle) <= 3


class TestPlan:
    async def test_video_is_the_best_picture_at_that_height_and_m4a(
        self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn
    ) -> None:
        plan = ytdlp.plan(AssetKey(ID, "video", "240p"), timeout_s=TIMEOUT_S)
        assert (plan.finish, plan.container, plan.mime, plan.title) == ("mux", "mp4", "video/mp4", f"Video {ID}")
        assert [file.source_id for file in plan.files] == ["ytdlp:133", "ytdlp:140"]
        for file, itag in zip(plan.files, (133, 140), strict=True):
            original = youtube.file_of(ID, itag)
            assert (file.size_bytes, file.size_is_exact, file.chunk_bytes) == (len(original), True, 10 * 1024 * 1024)
            assert (file.proxy, file.verify_tls) == (youtube.url, False)
            assert "User-Agent" in file.headers
            assert await fetch(file) == (200, original)
        assert youtube.downloads(ID) == 2

    @pytest.mark.parametrize(
        ("variant", "itag", "finish", "container", "mime"),
        [
            ("m4a", 140, "direct", "m4a", "audio/mp4"),
            ("opus", 251, "direct", "webm", "audio/webm"),
            ("mp3", 140, "mp3", "mp3", "audio/mpeg"),
        ],
    )
    def test_audio_comes_from_the_file_that_needs_least_work(
        self, ytdlp: YtDlpProvider, variant: str, itag: int, finish: str, container: str, mime: str
    ) -> None:
        plan = ytdlp.plan(AssetKey(ID, "audio", variant), timeout_s=TIMEOUT_S)
        assert (plan.finish, plan.container, plan.mime) == (finish, container, mime)
        assert [file.source_id for file in plan.files] == [f"ytdlp:{itag}"]

    def test_one_muxed_file_when_there_is_nothing_else(self, ytdlp: YtDlpProvider) -> None:
        video = ytdlp.plan(AssetKey("onlymuxed01", "video", "360p"), timeout_s=TIMEOUT_S)
        assert (video.finish, [file.source_id for file in video.files]) == ("remux", ["ytdlp:18"])
        audio = ytdlp.plan(AssetKey("onlymuxed01", "audio", "mp3"), timeout_s=TIMEOUT_S)
        assert (audio.finish, [file.source_id for file in audio.files]) == ("mp3", ["ytdlp:18"])
        for variant, finish in (("m4a", "extract"), ("opus", "opus"), ("m4a.tags", "extract"), ("flac", "flac")):
            sound = ytdlp.plan(AssetKey("onlymuxed01", "audio", variant), timeout_s=TIMEOUT_S)
            assert (sound.finish, [file.source_id for file in sound.files]) == (finish, ["ytdlp:18"])
        assert ytdlp.resolve("onlymuxed01", timeout_s=TIMEOUT_S).audio_formats == ("m4a", "opus", "mp3", "flac")

    def test_says_when_a_height_is_not_there(self, ytdlp: YtDlpProvider) -> None:
        with pytest.raises(QualityUnavailable):
            ytdlp.plan(AssetKey(ID, "video", "1080p"), timeout_s=TIMEOUT_S)

    def test_resolve_then_plan_extracts_once(self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn) -> None:
        ytdlp.resolve(ID, timeout_s=TIMEOUT_S)
        ytdlp.plan(AssetKey(ID, "audio", "m4a"), timeout_s=TIMEOUT_S)
        ytdlp.plan(AssetKey(ID, "video", "360p"), timeout_s=TIMEOUT_S)
        assert youtube.counts[f"watch:{ID}"] == 1

    async def test_extracting_again_gets_past_a_403(self, ytdlp: YtDlpProvider, youtube: YouTubeStandIn) -> None:
        key = AssetKey("forbidden01", "audio", "m4a")
        youtube._generations.clear()
        refused = ytdlp.plan(key, timeout_s=TIMEOUT_S).files[0]
        assert (await fetch(refused))[0] == 403
        renewed = ytdlp.plan(key, timeout_s=TIMEOUT_S, fresh=True).files[0]
        assert await fetch(renewed) == (200, youtube.file_of("forbidden01", 140))
        assert (renewed.source_id, renewed.size_bytes) == (refused.source_id, refused.size_bytes)


class TestOptions:
    @pytest.mark.parametrize(
        "name",
        [
            "exec", "exec_before_download", "postprocessors", "outtmpl", "paths", "cookiesfrombrowser",
            "external_downloader", "ffmpeg_location", "writeinfojson", "print_to_file", "load_info_filename",
            "netrc_cmd", "js_runtimes", "remote_components", "plugin_dirs", "enable_file_urls", "cachedir",
        ],
    )  # fmt: skip
    def test_what_runs_programs_or_writes_files_is_left_out(self, name: str) -> None:
        assert kept_options({name: "x", "proxy": "http://p", "cookiefile": "c"}) == {
            "proxy": "http://p",
            "cookiefile": "c",
        }

    def test_the_operators_options_go_over_the_defaults_but_not_over_the_fixed_ones(self, tmp_path: Path) -> None:
        options = make_options({"socket_timeout": 99, "noplaylist": False}, cache_folder=tmp_path)
        assert (options["socket_timeout"], options["noplaylist"]) == (99, True)

    def test_node_comes_from_the_wheel_and_works_within_the_memory_limit(self, tmp_path: Path) -> None:
        import resource

        node = make_options({}, cache_folder=tmp_path)["js_runtimes"]["node"]["path"]
        limit = (ytdlp_pool.MEMORY_BYTES, ytdlp_pool.MEMORY_BYTES)
        code = "process.stdout.write(String([3, 1, 2].sort().map((n) => n * 2)))"
        done = subprocess.run(
            [node, "-e", code],
            capture_output=True,
            check=False,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, limit),
        )
        assert (done.returncode, done.stdout) == (0, b"2,4,6"), done.stderr

    def test_an_option_that_yt_dlp_cannot_use_is_an_upstream_error(self) -> None:
        provider = YtDlpProvider(
            options={"js_runtimes": "x", "cookiefile": "/nonexistent/folder/cookies", "ratelimit": []}
        )
        try:
            with pytest.raises((UpstreamError, UpstreamUnreachable)):
                provider.resolve(ID, timeout_s=TIMEOUT_S)
        finally:
            provider.close()

    @pytest.mark.parametrize(
        ("proxies", "said"),
        [
            ([], ["refused", "tried", "refused", "refused"]),  # the last one is a network for examples, not public
            (["http://u:p@127.0.0.3:1"], ["refused", "tried", "tried", "refused"]),
            (["http://localhost:1"], ["tried", "tried", "refused", "refused"]),
        ],
    )
    def test_private_addresses_and_ways_past_a_proxy_are_refused(self, proxies: list[str], said: list[str]) -> None:
        """Every connection of the process is checked, also one that a page asks for."""
        code = (
            "import ipaddress, socket, sys\n"
            "from apps.downloads.providers.ytdlp_jail import Guard\n"
            "guard = Guard((ipaddress.ip_network('127.0.0.2/32'),))\n"
            "guard.install()\n"
            "guard.use_proxies(*sys.argv[1:])\n"
            "for host in ('localhost', '127.0.0.2', '127.0.0.3', '203.0.113.1'):\n"
            "    try: socket.create_connection((host, 1), timeout=0.2)\n"
            "    except PermissionError: print('refused')\n"
            "    except OSError: print('tried')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *proxies], capture_output=True, check=True, cwd=ytdlp_pool.ROOT, timeout=60
        )
        assert done.stdout.decode().split() == said


SCRIPT = """
import json, os, subprocess, sys, time
def say(what):
    sys.stdout.write(json.dumps(what) + "\\n"); sys.stdout.flush()
json.loads(sys.stdin.readline())
say({"ready": True})
for line in sys.stdin:
    how = json.loads(line)["video_id"]
    if how == "helped":
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say({"info": {"pid": os.getpid(), "helper": helper.pid}}); continue
    if how == "hang": time.sleep(600)
    if how == "die": os._exit(3)
    if how == "babble":
        while True: sys.stdout.write("x" * 65536)
    if how == "nonsense": print("this is not JSON", flush=True); continue
    if how == "array": say([1]); continue
    say({"info": {"pid": os.getpid(), "environment": sorted(os.environ)}})
"""


class TestProcesses:
    @pytest.fixture
    def pool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildPool]:
        """A pool whose processes do what they are asked to do wrong."""
        (tmp_path / "misbehaving_child.py").write_text(SCRIPT)
        monkeypatch.setattr(ytdlp_pool, "MODULE", "misbehaving_child")
        monkeypatch.setattr(ytdlp_pool, "ROOT", tmp_path)
        monkeypatch.setattr(ytdlp_pool, "MAX_ANSWER_BYTES", 1024 * 1024)
        pool = ChildPool(options={}, allow=[], home=tmp_path / "home", size=1)
        yield pool
        pool.close()

    def pid(self, pool: ChildPool) -> int:
        answer: int = pool.ask({"video_id": "ok"}, timeout_s=60)["info"]["pid"]
        return answer

    def test_one_process_answers_many_questions(self, pool: ChildPool) -> None:
        assert self.pid(pool) == self.pid(pool)

    def test_one_that_was_started_ahead_answers_the_first_question(self, pool: ChildPool) -> None:
        pool.warm()
        wait_until(lambda: bool(pool._idle))
        assert pool._idle[0].pid == self.pid(pool)

    def test_one_that_hangs_is_killed_with_all_it_started(self, pool: ChildPool) -> None:
        answer = pool.ask({"video_id": "helped"}, timeout_s=60)["info"]
        pid, helper = answer["pid"], answer["helper"]
        assert psutil.Process(helper).is_running()
        with pytest.raises(UpstreamTimeout):
            pool.ask({"video_id": "hang"}, timeout_s=0.5)
        assert not psutil.pid_exists(pid)
        wait_until(lambda: not psutil.pid_exists(helper) or psutil.Process(helper).status() == "zombie")
        assert self.pid(pool) != pid

    @pytest.mark.parametrize("how", ["die", "babble", "nonsense", "array"])
    def test_one_that_dies_or_babbles_is_replaced(self, pool: ChildPool, how: str) -> None:
        pid = self.pid(pool)
        with pytest.raises(UpstreamError):
            pool.ask({"video_id": how}, timeout_s=60)
        assert self.pid(pool) != pid

    def test_one_that_died_while_idle_is_replaced_unnoticed(self, pool: ChildPool) -> None:
        pid = self.pid(pool)
        os.kill(pid, signal.SIGKILL)
        assert self.pid(pool) != pid

    def test_one_whose_answer_shows_that_its_session_is_spoiled_is_replaced(self, pool: ChildPool) -> None:
        pid = self.pid(pool)
        pool.ask({"video_id": "ok"}, timeout_s=60, spoils=lambda _: True)
        assert self.pid(pool) != pid

    def test_one_is_replaced_after_so_many_questions(self, pool: ChildPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ytdlp_pool, "QUESTIONS_PER_CHILD", 2)
        pids = [self.pid(pool) for _ in range(4)]
        assert (pids[0] == pids[1], pids[1] == pids[2], pids[2] == pids[3]) == (True, False, True)

    def test_waiting_for_a_busy_pool_ends_at_the_deadline(self, pool: ChildPool) -> None:
        with pool._slots, pytest.raises(OwnQueueFull):  # its one process is busy
            pool.ask({"video_id": "ok"}, timeout_s=0.2)
        self.pid(pool)

    def test_a_question_left_little_time_by_the_queue_is_no_timeout_of_the_source(
        self, pool: ChildPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.pid(pool)
        looks: list[float] = []

        def give_it_free_when_half_of_the_time_is_over() -> None:
            """Called each time that who waits in the queue looks up, so at first after its time has begun."""
            looks.append(time.monotonic())
            if looks[0] >= 0 and looks[-1] - looks[0] >= 1:
                looks[0] = -1.0
                pool._slots.release()

        monkeypatch.setattr(ytdlp_pool, "raise_if_stopped", give_it_free_when_half_of_the_time_is_over)
        pool._slots.acquire()
        with pytest.raises(OwnQueueFull):
            pool.ask({"video_id": "hang"}, timeout_s=2)
        assert looks[0] == -1
        monkeypatch.undo()

    def test_gets_no_secret_of_the_server(self, pool: ChildPool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAVETUBE_KEY", "00" * 16)
        names = pool.ask({"video_id": "ok"}, timeout_s=60)["info"]["environment"]
        assert not set(names) - {"HOME", "LC_CTYPE", *ytdlp_pool.PASSED_ON}

    def test_it_dies_with_its_parent(self, tmp_path: Path) -> None:
        """A parent that is killed takes its real yt-dlp process along."""
        code = (
            "import sys, pathlib, time\n"
            "from apps.downloads.providers.ytdlp_pool import ChildPool\n"
            "pool = ChildPool(options={'quiet': True, 'proxy': 'http://127.0.0.1:1'}, allow=[], "
            f"home=pathlib.Path({str(tmp_path)!r}), size=1)\n"
            "pool.ask({'video_id': 'dQw4w9WgXcQ'}, timeout_s=30)\n"
            "print(pool._idle[0].pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=ytdlp_pool.ROOT, stdout=subprocess.PIPE)
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert psutil.pid_exists(child)
        finally:
            parent.kill()
            parent.communicate()
        wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_the_stand_in_settings_are_json(youtube: YouTubeStandIn) -> None:
    assert json.loads(youtube.settings["YTDLP_OPTIONS"])["proxy"] == youtube.url
