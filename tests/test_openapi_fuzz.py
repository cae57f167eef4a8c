"""schemathesis asks the running server what the OpenAPI document allows, and what not, and judges the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from apps.downloads.documents import MediaJob
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.downloads.library import AUDIO, VIDEO, VIDEO_ID, known_info, put_hot
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import TelegramStandIn
from tests.standins.youtube import YouTubeStandIn

EXAMPLES = 3  # for each operation; they are the same in every run
COVERED, COVERED_OPERATIONS = ("/api/v1/info",), 2
WITH_CONTENT = {"GET /api/v1/info", "GET /api/v1/audio", "GET /api/v1/video", "GET /api/v1/jobs/{id}",
                "GET /api/v1/batch/{id}", "GET /api/v1/admin/keys/{id}", "GET /api/v1/me"}  # fmt: skip
"""Operations whose answers with content must have been seen: what they ask for is there."""
CONFIG = """
hooks = "hooks.py"

[checks]
# 502, 503 and 504 say that an outside source cannot be asked, or has refused; a 500 is always a failure.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504]
# Off: what is asked for has to exist, and links, addresses and time zones are checked for more than a schema can say.
positive_data_acceptance.enabled = false
"""
# Many strangers, each from an address of its own: else ignored_auth sees the limit of strangers (429), not the 401.
HOOKS = """
import collections
import itertools
import json
import pathlib
import schemathesis

numbers = itertools.count(1)
positive = collections.Counter()  # of each operation, so that another operation changes nothing for this one
known = json.loads(pathlib.Path("known.json").read_text())
IDS = (("/jobs/{id}", "job"), ("/batch/{id}", "batch"), ("/admin/keys/{id}", "key"))

@schemathesis.hook
def before_call(context, case, kwargs):
    number = next(numbers)
    case.headers["X-Forwarded-For"] = f"198.18.{number // 250}.{number % 250 + 1}"
    if not case.meta.generation.mode.is_positive or case.method.upper() == "DELETE":
        return
    positive[case.method, case.operation.path] += 1
    if positive[case.method, case.operation.path] % 2:
        for fields in (case.query, case.body):
            if isinstance(fields, dict) and isinstance(fields.get("url"), str):
                fields["url"] = known["video"]
        for path, name in IDS:
            if path in case.operation.path and case.path_parameters:
                case.path_parameters[next(iter(case.path_parameters))] = known[name]

@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 200:
        with open("seen", "a") as file:
            file.write(f"{case.operation.method.upper()} {case.operation.path}\\n")
"""


def seed_jobs(url: str, key: str) -> dict[str, str]:
    """A job and a batch of this key."""
    ask = {"headers": {"X-API-Key": key}, "timeout": 60}
    batch = httpx.post(f"{url}/api/v1/batch", json={"urls": [VIDEO_ID]}, **ask).json()["id"]
    about = {"asset_id": "f" * 24, "video_id": VIDEO_ID, "kind": "audio", "variant": "opus", "state": "failed"}
    job = MediaJob(**about, key_prefix=key[3:11], active=False, error_code="video_private", error_message="No.").save()
    return {"job": job.id, "batch": batch}


@pytest.fixture(scope="module")
def instance(tmp_path_factory) -> Iterator[Instance]:
    """Has one video; the stand-in for the outside knows none, and refuses them at once."""
    empty_everything()
    known_info()
    put_hot(AUDIO)
    put_hot(VIDEO)
    folder = tmp_path_factory.mktemp("openapi")
    with (
        SaveTubeStandIn(know_all=False) as savetube,
        YouTubeStandIn(know_all=False) as youtube,
        TelegramStandIn(folder=folder) as telegram,
    ):
        outside = {
            "PUBLIC_URL": "", "PROVIDERS": "savetube", **savetube.settings, **youtube.settings,
            "TELEGRAM_API_URL": telegram.url, "TELEGRAM_FILE_URL": f"{telegram.url}/file",
            "TRUSTED_PROXIES": "127.0.0.1",
        }  # fmt: skip
        server = Instance(folder, outside)
        try:
            yield server.start()
        finally:
            server.stop()


def ask_everything(instance: Instance, folder: Path, *options: str) -> str:
    """Let schemathesis run; its report. Fails when a check does."""
    key = create_key(name="schemathesis", scopes=tuple(Scope), limit_per_hour=1_000_000).key
    known_key = create_key(name="to be looked at").document.prefix
    known = {"video": VIDEO_ID, "key": known_key, **seed_jobs(instance.url, key)}
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "known.json").write_text(json.dumps(known))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{instance.url}/api/schema?format=json",
        "--url", instance.url, "--header", f"X-API-Key: {key}", "--generation-deterministic",
        "--suppress-health-check", "all", "--request-timeout", "60", "--continue-on-failure", "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(600)
def test_answers_are_as_the_openapi_document_says(instance, tmp_path):
    said = ask_everything(instance, tmp_path, "--phases", "fuzzing", "--max-examples", str(EXAMPLES))
    paths = httpx.get(f"{instance.url}/api/schema?format=json", timeout=60).json()["paths"]
    assert f"Tested: {sum(len(methods) for methods in paths.values())}\n" in said, said
    seen = set((tmp_path / "seen").read_text().splitlines())
    assert seen >= WITH_CONTENT, WITH_CONTENT - seen


@pytest.mark.timeout(600)
def test_every_edge_of_the_usual_operations_is_answered_as_documented(instance, tmp_path):
    """The coverage phase (each field at each edge of its schema, left out, doubled, of another type), where it counts
    most: for all operations it takes minutes."""
    options = [option for path in COVERED for option in ("--include-path", path)]
    said = ask_everything(instance, tmp_path, "--phases", "coverage", *options)
    assert "Coverage" in said
    assert f"Tested: {COVERED_OPERATIONS}\n" in said, said
