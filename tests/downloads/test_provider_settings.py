import subprocess
import sys
import time

import pytest

from apps.core.documents import AuditEntry
from apps.core.errors import NotReady, UpstreamError
from apps.core.owners import make_owner
from apps.core.redis import redis_client
from apps.downloads.providers import arrangement, health
from apps.downloads.providers.arrangement import arrange_providers, forget_arrangement
from apps.downloads.providers.breaker import FAILURES_TO_OPEN
from apps.downloads.providers.chain import ProviderChain
from apps.downloads.services.provider_settings import move_provider, view_providers
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.downloads.conftest import Api
from tests.downloads.fetch.origin import SampleProvider
from tests.downloads.library import AUDIO, VIDEO_ID
from tests.downloads.samples import audio_plan
from tests.waiting import Clock, wait_until

NAMES = ("savetube", "ytdlp")


@pytest.fixture
def admin(api) -> Api:
    forget_arrangement()
    yield Api(create_key(name="admin", scopes=(Scope.ADMIN,)).key)
    forget_arrangement()


def shown(admin: Api) -> dict[str, dict[str, object]]:
    answer = admin.get("admin/providers")
    assert answer.status_code == 200
    return {entry["name"]: entry for entry in answer.json()["providers"]}


def sample(name: str, **options) -> SampleProvider:
    return SampleProvider(name=name, make_plan=options.get("make_plan", lambda key: audio_plan(key=key)))


def test_needs_the_admin_scope(api):
    assert api.get("admin/providers").json()["error"] == "scope_missing"
    assert api.post("admin/providers/ytdlp/disable", {}).json()["error"] == "scope_missing"


def test_a_change_counts_at_once_here_and_elsewhere_when_the_memory_is_old(admin, monkeypatch):
    assert list(arrange_providers(NAMES)) == list(NAMES)
    assert admin.post("admin/providers/savetube/disable", {}).status_code == 200
    assert list(arrange_providers(NAMES)) == ["ytdlp"]
    admin.post("admin/providers/savetube/enable", {})
    answer = admin.post("admin/providers/order", {"order": "ytdlp, savetube"}).json()
    assert [entry["name"] for entry in answer["providers"]] == ["ytdlp", "savetube"]
    assert list(arrange_providers(NAMES)) == ["ytdlp", "savetube"]
    assert arrangement.MAX_AGE_S < 2


def test_changes_are_on_the_audit_log(admin):
    admin.post("admin/providers/savetube/disable", {})
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target_id, entry.actor) == ("provider.disable", "savetube", f"key {admin.prefix}")
    assert (entry.before, entry.after) == ({"enabled": True}, {"enabled": False})


def test_an_unknown_source_and_an_incomplete_order_are_refused(admin):
    assert admin.post("admin/providers/other/disable", {}).status_code == 404
    for order in ("ytdlp", "ytdlp,ytdlp", "ytdlp,savetube,other", ""):
        assert admin.post("admin/providers/order", {"order": order}).json()["error"] == "invalid_parameter"


def test_a_chain_asks_only_those_that_are_on_in_their_order(admin):
    first, second = sample("savetube"), sample("ytdlp")
    chain = ProviderChain([first, second], arrange=arrange_providers)
    assert next(iter(chain.plans(AUDIO, timeout_s=5))).plan.provider == "savetube"
    admin.post("admin/providers/order", {"order": "ytdlp,savetube"})
    assert next(iter(chain.plans(AUDIO, timeout_s=5))).plan.provider == "ytdlp"
    for name in NAMES:
        admin.post(f"admin/providers/{name}/disable", {})
    with pytest.raises(NotReady):
        chain.resolve(VIDEO_ID, timeout_s=5)


def test_health_and_an_open_circuit_are_shown(admin):
    chain = ProviderChain([sample("ytdlp", make_plan=UpstreamError("Down."))])
    for _ in range(FAILURES_TO_OPEN):
        offers = chain.plans(AUDIO, timeout_s=5)
        with pytest.raises(UpstreamError):
            next(iter(offers))
        assert offers.failures[0].as_document()["took_s"] >= 0
    entry = shown(admin)["ytdlp"]
    assert (entry["failures"], entry["circuit"], entry["last_error"]) == (FAILURES_TO_OPEN, "open", "upstream_error")
    assert 0 < entry["next_trial_s"] <= 5
    assert entry["circuit_text"].startswith("Left alone by one process")
    assert [(error["code"], error["message"]) for error in entry["recent_errors"]] == [("upstream_error", "Down.")] * 5
    chain.resolve(VIDEO_ID, timeout_s=5)  # nobody else is left: tried all the same
    entry = shown(admin)["ytdlp"]
    assert (entry["answers"], entry["circuit"], entry["paused_processes"]) == (1, "closed", 0)


def test_a_half_open_circuit_and_its_trial_are_shown(admin, monkeypatch):
    clock = Clock()
    source = sample("ytdlp", make_plan=UpstreamError("Down."))
    chain = ProviderChain([source, sample("savetube")], clock=clock.monotonic)
    for _ in range(FAILURES_TO_OPEN):
        assert next(iter(chain.plans(AUDIO, timeout_s=5))).plan.provider == "savetube"
    assert shown(admin)["ytdlp"]["circuit"] == "open"
    clock.ahead_s = 6
    monkeypatch.setattr(health, "time", clock)
    entry = shown(admin)["ytdlp"]
    assert (entry["circuit"], entry["half_open_processes"], entry["next_trial_s"]) == ("half_open", 1, None)
    assert entry["circuit_text"].startswith("Half open")
    seen = []
    source.before_plan = lambda: seen.append(shown(admin)["ytdlp"])
    next(iter(chain.plans(AUDIO, timeout_s=5)))
    assert (seen[0]["trials_running"], seen[0]["circuit_text"][:8]) == (1, "On trial")
    assert shown(admin)["ytdlp"]["circuit"] == "open"  # the trial failed


def test_processes_that_are_gone_say_nothing(admin, redis_server):
    redis_client().hset("yt:provider:ytdlp:paused", make_owner().rpartition(":")[0] + ":1", time.time() + 60)
    assert shown(admin)["ytdlp"]["circuit"] == "closed"


def test_one_place_up_or_down(admin):
    move_provider("ytdlp", up=True, actor="tester")
    assert [view.name for view in view_providers()] == ["ytdlp", "savetube"]
    move_provider("ytdlp", up=True, actor="tester")  # it is the first already
    move_provider("ytdlp", up=False, actor="tester")
    assert [view.name for view in view_providers()] == list(NAMES)
    assert AuditEntry.objects(action="provider.order").count() == 2


OTHER_PROCESS = """
import sys, django
django.setup()
from apps.downloads.providers.arrangement import arrange_providers
for line in sys.stdin:
    print(",".join(arrange_providers(("savetube", "ytdlp"))), flush=True)
"""


def test_other_processes_follow_within_their_two_seconds(admin):
    """Each keeps what it read for MAX_AGE_S, so the answers of all of them change without any of them starting anew."""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    def answers() -> list[str]:
        for other in others:
            other.stdin.write("\n")
            other.stdin.flush()
        return [other.stdout.readline().strip() for other in others]

    try:
        assert answers() == ["savetube,ytdlp"] * 2
        admin.post("admin/providers/order", {"order": "ytdlp,savetube"})
        wait_until(lambda: answers() == ["ytdlp,savetube"] * 2)
        admin.post("admin/providers/ytdlp/disable", {})
        wait_until(lambda: answers() == ["savetube"] * 2)
    finally:
        for other in others:
            other.communicate()
