"""The real command in a process of its own: what an operator sees, and what is left when it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from django.conf import settings

from apps.core.instance import RUN_MARK
from tests.ports import free_port
from tests.strangers import mongo_uri_of_a_stranger, redis_url_of_a_stranger
from ytserver.env import without_settings

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60


class Up:
    """One ``manage.py up`` over a folder of its own."""

    def __init__(self, var_dir: Path, **settings: str) -> None:
        self.var_dir = var_dir
        self.port = int(settings.pop("PORT", free_port()))
        self.environ = without_settings(os.environ) | {
            "VAR_DIR": str(var_dir),
            "PORT": str(self.port),
            "WEB_WORKERS": "1",
            **settings,
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> "Up":
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "manage.py", "up", *options],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def wait_ready(self) -> dict:
        """The JSON line of ``up --json``."""
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=120)

    def run_to_its_end(self) -> str:
        """For a start that must fail: its one line on stderr."""
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", "up"], env=self.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1, done
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        return lines[0]

    def processes(self) -> list[psutil.Process]:
        mark_file = self.var_dir / "run" / "mark"
        mark = mark_file.read_text().strip() if mark_file.exists() else "none"
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(RUN_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def wait_for(condition, *, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture
def up(tmp_path):
    made = []

    def make(name="var", **settings):
        made.append(Up(tmp_path / name, **settings))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.communicate()
        for process in one.processes():
            with suppress(psutil.Error):
                process.kill()


class TestUp:
    @pytest.mark.timeout(400)
    def test_first_start_shows_a_key_that_works_and_the_second_keeps_it_and_shows_nothing(self, up):
        server = up().start()
        lines = []
        for line in server.process.stdout:
            lines.append(line)
            if "Stop with Ctrl-C" in line:
                break
        text = "".join(lines)
        curl = re.search(r"curl -H '(?P<header>[^']+)' '(?P<url>[^']+)'", text)
        assert curl, text + server.process.stderr.read()
        assert "admin password" in text
        header = dict([curl["header"].split(": ", 1)])
        answer = httpx.get(curl["url"], headers=header, timeout=60)
        assert answer.status_code == 200
        assert answer.json()["status"] is True
        out, err = server.stop(signal.SIGINT)
        assert (server.process.returncode, err) == (0, "")
        assert out.rstrip().endswith("Stopped.")
        assert not server.processes()

        ready = server.start("--json").wait_ready()
        assert ready["url"] == f"http://127.0.0.1:{server.port}"
        assert ready["pid"] == server.process.pid
        assert ready["first_start"] is None
        assert httpx.get(curl["url"], headers=header, timeout=60).status_code == 200
        _, err = server.stop()
        assert server.process.returncode == 0
        key = header["X-API-Key"]
        logs = "".join(path.read_text(errors="replace") for path in (server.var_dir / "log").iterdir())
        assert key not in logs + err
        assert not server.processes()

    @pytest.mark.timeout(400)
    def test_two_instances_run_side_by_side_and_each_folder_has_one(self, up):
        first, second = up("one").start("--json"), up("two").start("--json")
        urls = {first.wait_ready()["url"], second.wait_ready()["url"]}
        assert len(urls) == 2
        assert all(httpx.get(f"{url}/healthz", timeout=60).status_code == 200 for url in urls)
        again = up("one")
        assert "is in use by a running instance" in again.run_to_its_end()
        again = up("three", PORT=str(first.port))
        assert f"cannot listen on 127.0.0.1, port {first.port}" in again.run_to_its_end()
        assert not again.processes()

    @pytest.mark.timeout(400)
    def test_killed_parent_and_killed_children(self, up):
        server = up().start("--json")
        ready = server.wait_ready()

        for name in ("mongod", "redis-server", "web_worker", "resolve@"):
            victim = next(p for p in server.processes() if any(name in word for word in p.cmdline()))
            victim.kill()
            psutil.wait_procs([victim], timeout=60)
        wait_for(lambda: answers(f"{ready['url']}/readyz"), timeout_s=60)

        server.process.kill()
        server.process.communicate()
        left = server.process.pid
        server.start("--json").wait_ready()
        assert server.process.pid != left
        assert {p.ppid() for p in server.processes()} == {server.process.pid}
        server.stop()
        assert not server.processes()

    def test_stops_in_the_middle_of_the_start(self, up):
        server = up().start("--json")
        wait_for(server.processes)
        out, err = server.stop()
        assert (server.process.returncode, out) == (0, "")
        assert "Stopping before everything had started" in err
        assert not server.processes()


class TestUpRefuses:
    def test_a_folder_that_cannot_be_written(self, up, tmp_path):
        (tmp_path / "file").write_text("")
        assert "VAR_DIR" in up("file/var").run_to_its_end()

    def test_a_bad_setting_without_showing_its_value(self, up):
        line = up(MONGO_URI="mysql://user:hunter2@db").run_to_its_end()
        assert line == "Setting MONGO_URI: must start with mongodb:// or mongodb+srv://"

    def test_a_missing_secret_when_debug_is_off(self, up):
        assert "SECRET_KEY, FIELD_KEYS: must be set when DEBUG is off" in up(DEBUG="false").run_to_its_end()

    def test_a_given_database_that_does_not_answer(self, up):
        server = up(MONGO_URI=f"mongodb://127.0.0.1:{free_port()}/x", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", "up", "--json"],
            env=server.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "Redis does not answer: check REDIS_URL" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (server.var_dir / "mongo" / "WiredTiger").exists()
        assert not server.processes()

    @pytest.mark.usefixtures("mongo", "redis_server")
    def test_databases_that_refuse_our_password(self, up):
        line = up(MONGO_URI=mongo_uri_of_a_stranger(), REDIS_URL=settings.SERVICES.redis_url).run_to_its_end()
        assert line == "CommandError: MongoDB refuses our user name or password: check MONGO_URI"
        line = up(MONGO_URI=mongo_uri_of_a_stranger(), REDIS_URL=redis_url_of_a_stranger()).run_to_its_end()
        assert line == "CommandError: Redis refuses our password: check REDIS_URL"


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=60).status_code == 200
    return False


def test_a_port_in_use_is_told_before_anything_starts(up):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = up(PORT=str(other.getsockname()[1]))
        assert "set another HOST or PORT" in server.run_to_its_end()
    assert not (server.var_dir / "run" / "services.json").exists()
