"""What a web process imports before it listens, and what it leaves for later: each package costs every start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

WEB = (
    "import json, sys, apps.core.web_worker; from apps.core.imports import import_rest_of_web, import_web;"
    "import_web(); listening = sorted(sys.modules);"
    "import_rest_of_web(); print(json.dumps([listening, sorted(sys.modules)]))"
)
EXTRAS = (
    "import sys; from apps.core.imports import import_without_extras; import_without_extras(mongo_uri=sys.argv[1]);"
    "import pymongo; print('OpenSSL' in sys.modules); import requests, rich, twisted, OpenSSL"
)
BOTH_AT_ONCE = """
import collections, sys, threading, time, types
from apps.core import imports, queues
from apps.core.queues import NotSent, send_task
imports.import_web()
queues.redis_client = lambda: types.SimpleNamespace(ping=bool)  # it answers, and is gone when Celery connects
began, both = threading.Event(), threading.Event()

class Sees:
    def find_spec(self, name, path=None, target=None):
        if name == "ytserver.celery":
            both.set()

def slow_namedtuple(name, *arguments, **options):  # Celery's first module calls it, and is replaced later
    if name == "version_info_t" and not began.is_set():
        began.set()
        both.wait(60)
        time.sleep(0.3)  # the thread behind gets to Celery too, if it came by another way
    return namedtuple(name, *arguments, **options)

def send():
    try:
        send_task("nobody.s")
    except NotSent:
        print("not sent")

namedtuple, collections.namedtuple = collections.namedtuple, slow_namedtuple
sys.meta_path.insert(0, Sees())
request = threading.Thread(target=send)
request.start()
assert began.wait(60)
imports.import_rest_of_web()
request.join()
"""
NEVER = ("yt_dlp", "daphne", "autobahn", "twisted", "rich", "requests", "OpenSSL", "service_identity")
BEHIND = ("celery", "kombu", "aiohttp", "httpx", "httpcore", "apps.core.outbound_aiohttp")
NOT_IN_WEB = ("aiohttp_socks", "apps.downloads.fetch", "apps.core.outbound_httpx")


@pytest.fixture(scope="module")
def modules() -> tuple[set[str], set[str]]:
    """Those of a fresh web process when it begins to listen, and those it has a moment later."""
    done = subprocess.run([sys.executable, "-c", WEB], capture_output=True, text=True, check=True)
    listening, later = json.loads(done.stdout)
    return set(listening), set(later)


@pytest.mark.parametrize("name", [*NEVER, *BEHIND, *NOT_IN_WEB])
def test_a_web_process_listens_without(modules, name):
    assert name not in modules[0]


@pytest.mark.parametrize("name", BEHIND)
def test_what_some_requests_need_is_imported_behind(modules, name):
    assert name in modules[1]


def test_a_request_and_the_thread_behind_can_come_to_celery_at_once():
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-c", BOTH_AT_ONCE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "not sent\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_web_process_that_listens_imports_the_rest_by_itself(mongo, redis_server):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "apps.core.web_worker", str(fd)]
        with subprocess.Popen(command, env=os.environ, pass_fds=(fd,)) as process:
            try:
                mapped = Path(f"/proc/{process.pid}/maps")
                wait_until(lambda: "/aiohttp/" in mapped.read_text(), timeout_s=60)
            finally:
                process.terminate()
                process.wait(30)


@pytest.mark.parametrize(
    ("mongo_uri", "by_tls"),
    [
        ("", False),
        ("mongodb://tls.example/db?retryWrites=true", False),
        ("mongodb://db.example/?SSL=true", True),
        ("mongodb+srv://db.example/db", True),
    ],
)
def test_pymongo_keeps_openssl_for_connections_by_tls(mongo_uri, by_tls):
    """And the extras that are left out can be imported afterwards."""
    program = f"from django.conf import settings; settings.configure();{EXTRAS}"
    done = subprocess.run([sys.executable, "-c", program, mongo_uri], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(by_tls)]
