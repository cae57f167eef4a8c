import json
import re
import socket

import pytest
import redis

from apps.analytics import counting, metrics, metrics_view
from apps.analytics.counting import LiveCounters, LivePublisher
from apps.analytics.histogram import BUCKETS
from apps.analytics.metrics_text import gauge, render
from apps.core import machines
from apps.core.errors import ERRORS_BY_CODE
from apps.core.redis import make_async_redis, redis_client
from tests.dashboard.samples import make_asset
from ytserver.env import BASE_DIR, Env

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")

SAMPLE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (?P<value>-?[0-9.e+-]+)')
GRAFANA = BASE_DIR / "docs" / "grafana.json"


def read(text):
    """Every sample by its name and labels. Fails on a line that is not in the format."""
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            found = SAMPLE.fullmatch(line)
            assert found, line
            key = found["name"], found["labels"] or ""
            assert key not in samples, line
            samples[key] = float(found["value"])
    return samples


@pytest.fixture
async def two_processes():
    client = make_async_redis()
    for _ in range(2):
        counters = LiveCounters()
        for status, first_byte_s in ((200, 0.004), (200, 0.2), (503, 60.0)):
            counters.sent(1000, "stream")
            counters.answered(
                route="/stream/audio", status=status, kind="stream", tier="hot", first_byte_s=first_byte_s,
                error="overloaded" if status == 503 else None,
            )  # fmt: skip
        await LivePublisher(counters, client).publish()
    await client.aclose()


@pytest.fixture
def env(settings):
    """Settings as the environment would give them."""

    def change(**values):
        settings.ENV = settings.ENV.model_copy(update={**Env.model_validate(values).model_dump(include=set(values))})

    return change


class TestMetrics:
    def test_the_processes_add_up_and_a_histogram_is_cumulative(self, two_processes):
        samples = read(metrics.metrics())
        assert samples["ytserver_requests_total", 'route="/stream/audio",status="200"'] == 4
        assert samples["ytserver_errors_total", 'code="overloaded"'] == 2
        assert samples["ytserver_media_requests_total", 'tier="hot"'] == 6
        assert samples["ytserver_sent_bytes_total", 'kind="stream"'] == 6000
        buckets = [
            value
            for (name, labels), value in samples.items()
            if name == "ytserver_first_byte_seconds_bucket" and "stream" in labels
        ]
        assert len(buckets) == BUCKETS
        assert buckets == sorted(buckets)
        assert (buckets[2], buckets[-2], buckets[-1]) == (0, 4, 6)
        assert samples["ytserver_first_byte_seconds_count", 'kind="stream"'] == 6
        assert samples["ytserver_first_byte_seconds_sum", 'kind="stream"'] == pytest.approx(120.408)

    def test_every_part_has_its_figures_also_when_nothing_has_happened_yet(self):
        samples = read(metrics.metrics())
        assert {labels for name, labels in samples if name == "ytserver_part_up"} == {
            f'part="{name}"' for name in metrics.COLLECTORS
        }
        for name in ("ytserver_hot_store_bytes", "ytserver_active_users", "ytserver_events_waiting"):
            assert samples[name, ""] == 0
        assert samples["ytserver_queue_has_worker", 'queue="fetch"'] == 0
        assert samples["ytserver_jobs", 'state="running"'] == 0
        assert samples["ytserver_telegram_bots", 'state="active"'] == 0

    def test_what_is_known_beforehand_is_there_with_zero(self, two_processes):
        """Prometheus takes the first value of a series for its beginning: growth from nothing to it is not seen."""
        samples = read(metrics.metrics())
        assert {samples["ytserver_media_requests_total", f'tier="{tier}"'] for tier in ("telegram", "external")} == {0}
        codes = {code: samples["ytserver_errors_total", f'code="{code}"'] for code in ERRORS_BY_CODE}
        assert {code for code, count in codes.items() if count} == {"overloaded"}
        for status, count in ((500, 0), (502, 0), (503, 2), (504, 0)):
            assert samples["ytserver_requests_total", f'route="/stream/audio",status="{status}"'] == count
        assert {
            labels for name, labels in samples if name == "ytserver_requests_total" and "audio" not in labels
        } == set()

    def test_how_machines_are_is_told_and_they_go_on_saying_it_between_scrapes(self):
        name = socket.gethostname()
        samples = read(metrics.metrics())
        assert samples["ytserver_machine_up", f'machine="{name}"'] == 1
        assert 0 <= samples["ytserver_machine_cpu_ratio", f'machine="{name}"'] <= 1
        used, memory = (
            samples[f"ytserver_machine_memory_{one}", f'machine="{name}"'] for one in ("used_bytes", "bytes")
        )
        assert 0 < used < memory
        assert redis_client().ttl(machines.WATCHED) > 120
        machines.machines()  # somebody looks at the overview
        assert redis_client().ttl(machines.WATCHED) > 120

    def test_without_redis_the_rest_is_told(self, monkeypatch):
        nowhere = redis.Redis(port=1)
        for module in ("metrics", "live"):
            monkeypatch.setattr(f"apps.analytics.{module}.redis_client", lambda: nowhere)
        samples = read(metrics.metrics())
        assert samples["ytserver_part_up", 'part="requests"'] == 0
        assert samples["ytserver_part_up", 'part="jobs"'] == 1
        assert ("ytserver_jobs", 'state="queued"') in samples

    def test_many_made_up_names_do_not_become_many_series(self, monkeypatch):
        monkeypatch.setattr(metrics, "MAX_SERIES", 10)
        redis_client().hset(counting.TOTALS, mapping={f"r:/x{number}|200": 1 for number in range(50)})
        assert metrics.metrics().count("ytserver_requests_total{") == 10
        assert metrics.metrics().count("ytserver_errors_total{") == 10
        counters = LiveCounters()
        monkeypatch.setattr(counting, "MAX_TOTALS", 5)
        for number in range(50):
            counters.answered(route=f"/{number}", status=200, kind="api", tier=None, error=None, first_byte_s=None)
        assert len(counters.totals) == 5

    def test_labels_are_escaped(self):
        assert render([gauge("a", "b", [({"c": 'd"\\\n'}, 1.5)])]).splitlines()[-1] == 'a{c="d\\"\\\\\\n"} 1.5'


class TestWhoMayRead:
    def test_this_machine_and_nobody_else(self, client):
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
        refused = client.get("/metrics", REMOTE_ADDR="192.0.2.1")
        assert (refused.status_code, refused.json()["error"]) == (403, "ip_not_allowed")
        assert client.post("/metrics").status_code == 405

    def test_a_proxy_that_is_not_trusted_lets_nobody_in(self, client):
        assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403

    def test_with_a_token_the_address_does_not_matter_but_a_wrong_token_does(self, client, env):
        env(metrics_token="a-made-up-token-1")
        for given, status in (("Bearer a-made-up-token-1", 200), ("Bearer a-made-up-token-2", 403), ("", 403)):
            answer = client.get("/metrics", REMOTE_ADDR="192.0.2.1", headers={"Authorization": given})
            assert answer.status_code == status
        assert client.get("/metrics").status_code == 403

    def test_named_networks(self, client, env):
        env(metrics_addresses="10.0.0.0/8,2001:db8::/32")
        for address, status in (("10.1.2.3", 200), ("2001:db8::5", 200), ("127.0.0.1", 403), ("11.0.0.1", 403)):
            assert client.get("/metrics", REMOTE_ADDR=address).status_code == status
        assert metrics_view.REFUSED in client.get("/metrics").json()["message"]


class TestGrafana:
    def test_every_query_of_the_dashboard_uses_metrics_that_exist(self, two_processes):
        families = set(re.findall(r"^# TYPE (\S+)", metrics.metrics(), re.MULTILINE))
        known = families | {f"ytserver_first_byte_seconds_{suffix}" for suffix in ("bucket", "sum", "count")}
        queries = [target["expr"] for panel in json.loads(GRAFANA.read_text())["panels"] for target in panel["targets"]]
        used = {name for query in queries for name in re.findall(r"ytserver_[a-z_]+", query)}
        assert used <= known
        assert families <= used | {"ytserver_first_byte_seconds"}

    def test_its_labels_and_units_are_those_of_the_metrics(self, two_processes):
        make_asset(1, size_bytes=10)
        labels: dict[str, set[str]] = {}
        for name, text in read(metrics.metrics()):
            labels.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', text))
        for panel in json.loads(GRAFANA.read_text())["panels"]:
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                query, known = target["expr"], set()
                for name, chosen in re.findall(r"(ytserver_[a-z_]+)(?:\{([^}]*)\})?", query):
                    assert set(re.findall(r'([a-z_]+)(?:=~|!=|=)"', chosen)) <= labels[name], query
                    known |= labels[name]
                grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
                assert grouped <= known, query
                kept = grouped if "sum" in query else known
                assert set(re.findall(r"\{\{ *([a-z_]+) *\}\}", target.get("legendFormat", ""))) <= kept, query
                assert unit == self.unit_of(query), query

    def unit_of(self, query: str) -> str:
        if "_seconds" in query:
            return "s"
        if "_ratio" in query:
            return "percentunit"
        if "_bytes" in query:
            return "Bps" if "rate(" in query else "bytes"
        if "rate(" in query:
            return "percentunit" if " / " in query else "reqps"
        return "short"
