"""schemathesis asks the running server what the OpenAPI document allows, and what not, and judges the answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx
import mongoengine
import pytest
from django.conf import settings

from apps.core.indexes import ensure_indexes
from apps.core.redis import redis_client
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.instance import Instance
from tests.standins.savetube import SaveTubeStandIn
from tests.standins.telegram import TelegramStandIn
from tests.standins.youtube import YouTubeStandIn

EXAMPLES = 3  # for each operation; they are the same in every run
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
import itertools
import schemathesis

numbers = itertools.count(1)

@schemathesis.hook
def before_call(context, case, kwargs):
    number = next(numbers)
    case.headers["X-Forwarded-For"] = f"198.18.{number // 250}.{number % 250 + 1}"
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory) -> Iterator[Instance]:
    """Knows no video: the stand-in for the outside refuses them at once."""
    for name in mongoengine.get_db().list_collection_names():
        mongoengine.get_db()[name].delete_many({})
    redis_client().flushdb()
    shutil.rmtree(settings.ENV.hot_root, ignore_errors=True)
    ensure_indexes()
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


@pytest.mark.timeout(600)
def test_answers_are_as_the_openapi_document_says(instance, tmp_path):
    key = create_key(name="schemathesis", scopes=tuple(Scope), limit_per_hour=1_000_000).key
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{instance.url}/api/schema?format=json",
        "--url", instance.url, "--header", f"X-API-Key: {key}", "--phases", "fuzzing", "--max-examples", str(EXAMPLES),
        "--generation-deterministic", "--suppress-health-check", "all", "--request-timeout", "60",
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    paths = httpx.get(f"{instance.url}/api/schema?format=json").json()["paths"]
    assert f"Tested: {sum(len(methods) for methods in paths.values())}\n" in done.stdout, done.stdout
