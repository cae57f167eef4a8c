"""What README and USAGE show as Python, and examples/, works as it stands: it runs against a server, in order."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from apps.keys.services import create_key
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.youtube import YouTubeStandIn
from tests.standins.youtube_videos import YouTubeVideo
from ytserver.env import BASE_DIR

VIDEO_ID, OTHER_ID = "jNQXAC9IVRw", "dQw4w9WgXcQ"
PLACEHOLDERS = {"PL...": "PL" + "x" * 32, "@somehandle": "@standin"}
SECRET, BODY = "whsec_example", b'{"event": "job.done"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Instance]:
    empty_everything()
    with YouTubeStandIn() as youtube:
        youtube.videos[VIDEO_ID] = YouTubeVideo(title="Me at the zoo", captions=True)
        folder = tmp_path_factory.mktemp("examples")
        instance = Instance(folder, {"PUBLIC_URL": "", "PROVIDERS": "ytdlp", **youtube.settings})
        try:
            yield instance.start()
        finally:
            instance.stop()


@pytest.fixture
def key() -> str:
    return create_key(name="reader", limit_per_hour=100_000).key


def blocks(document: str, url: str, key: str) -> Iterator[tuple[str, str]]:
    """Each Python example: where it stands, and its text with this server and key in it."""
    text = (BASE_DIR / document).read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code = found[1].replace("127.0.0.1:8000", url.removeprefix("http://")).replace("yt_...", key)
        for shown, real in PLACEHOLDERS.items():
            code = code.replace(shown, real)
        yield f"{document}, line {text.count(chr(10), 0, found.start()) + 1}", code


@pytest.mark.parametrize(("document", "count"), [("README.md", 1), ("USAGE.md", 11)])
def test_the_python_of_the_documents_runs_from_the_top(server, key, document, count, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    at = int(time.time())
    signature = hmac.new(SECRET.encode(), f"{at}.".encode() + BODY, hashlib.sha256).hexdigest()
    request = SimpleNamespace(headers={"X-Webhook-Signature": f"t={at},v1={signature}"})
    names = {"__name__": "example", "request": request, "secret": SECRET, "raw_body": BODY}
    seen = 0
    try:
        for place, code in blocks(document, server.url, key):
            exec(compile(code, place, "exec"), names)  # noqa: S102 - our own documents
            seen += 1
    finally:
        for api in names.values():
            if isinstance(api, httpx.Client):
                api.close()
    assert seen == count
    if document == "USAGE.md":
        assert (tmp_path / "song.m4a").stat().st_size == names["audio"]["file_size"] or names["audio"]["job"]
        assert {entry["state"] for entry in names["answer"].get("entries", [])} <= {"done"}
    assert server.url + "/stream/" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["fetch_sync.py", "fetch_async.py"])
def test_the_programs_save_files_that_are_whole(server, key, program, tmp_path):
    environ = {**os.environ, "YTSERVER_URL": server.url, "YTSERVER_KEY": key}
    command = [sys.executable, str(BASE_DIR / "examples" / program), f"https://youtu.be/{OTHER_ID}"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (saved,) = tmp_path.iterdir()
    assert f"{saved.name}: {saved.stat().st_size:,} bytes, from " in done.stdout
    assert saved.read_bytes()[4:8] == b"ftyp"
