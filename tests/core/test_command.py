"""What all commands do the same way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management.base import CommandError

from apps.core.command import clear_failures
from tests.full_redis import full_redis
from ytserver.env import BASE_DIR

ENDLESS = """
from apps.core.command import clear_failures
from apps.core.ending import ended_as_shells_expect
with ended_as_shells_expect(), clear_failures():
    while True:
        print("a line")
"""


def test_a_reader_that_has_seen_enough_is_no_fault():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_says_that_it_is_mongodb_that_does_not_answer():
    with manage("users", "list", env={**os.environ, "MONGO_URI": "mongodb://127.0.0.1:1/x"}) as process:
        out, said = process.communicate(timeout=120)
    hint = "Is the server running (`manage.py up`)? Else check MONGO_URI."
    assert (process.returncode, out, said) == (1, "", f"CommandError: MongoDB does not answer. {hint}\n")


def test_says_that_it_is_redis_that_does_not_answer():
    with pytest.raises(CommandError, match=r"^Redis does not answer\. .* REDIS_URL\.$"), clear_failures():
        redis.Redis(port=1, retry=None).ping()


def test_says_that_redis_is_full(redis_server):
    with full_redis() as full, pytest.raises(CommandError, match=r"^Redis is full\. .*maxmemory"), clear_failures():
        full.set("anything", 1)


def manage(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A command as a shell starts it: Ctrl-C ends it, also where the shell that runs the tests has it ignored."""
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - one use
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, BASE_DIR / "manage.py", *arguments], preexec_fn=heard, **pipes)


class TestManage:
    @pytest.fixture(params=["", "1"], ids=["written at the end", "written at once"])
    def environ(self, request) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": request.param}

    def test_a_reader_that_has_gone_is_no_fault(self, environ):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing) as gone, manage("rotate_link_keys", stdout=gone, env=environ) as process:
            assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 141

    def test_a_full_disk_is_one_line(self, environ):
        with Path("/dev/full").open("w") as full, manage("rotate_link_keys", stdout=full, env=environ) as process:
            said = process.communicate(timeout=60)[1]
        assert (process.returncode, said) == (1, "Nothing more can be written: No space left on device.\n")

    def test_ctrl_c_is_one_line(self, tmp_path):
        os.mkfifo(tmp_path / "backup")
        process = manage("restore", str(tmp_path / "backup"), "--check")
        with process, (tmp_path / "backup").open("wb"):  # opens as soon as the command reads
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=60)
        assert (process.returncode, out, said) == (130, "", "Stopped.\n")

    def test_web_takes_only_ports(self):
        with manage("web", "--port", "99999") as process:
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert said.endswith("error: argument --port: a port is a number from 1 to 65535\n")

    def test_an_error_inside_keeps_its_own_words(self):
        with manage("update_key", "abcdefgh") as process:
            out, said = process.communicate(timeout=60)
        assert (process.returncode, out, said) == (1, "", "CommandError: Say what to change: see --help.\n")
