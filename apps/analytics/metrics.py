"""What Prometheus is told: the whole installation, whichever web process is asked.

Counters are those that every web process adds to Redis once a second; the rest is read from where it lies. Labels have
few values: routes and error codes are ours, keys and videos are no labels. What is known beforehand (error codes,
tiers, failures of routes in use) is there with 0: Prometheus sees no growth in a series that appears with its first 1.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

import mongoengine
import redis
from django.conf import settings
from django.core.cache import cache
from pymongo.errors import PyMongoError

from apps.analytics import counting
from apps.analytics.events import STREAM
from apps.analytics.histogram import BOUNDS_S, BUCKETS
from apps.analytics.live import live_figures
from apps.analytics.metrics_text import Family, counter, gauge, render
from apps.core.errors import ERRORS_BY_CODE
from apps.core.heartbeats import QUEUES, idle_queues
from apps.core.machines import Machine, machines
from apps.core.queues import waiting_messages
from apps.core.redis import redis_client
from apps.core.tunables import hot_max_bytes
from apps.downloads.documents import JobState
from apps.downloads.selectors import count_active_jobs
from apps.streaming.usage import hot_usage
from apps.telegram_cache.documents import BotState
from apps.telegram_cache.selectors import all_bots
from apps.telegram_cache.services.totals import recent_totals

logger = logging.getLogger(__name__)

FRESH_S = 15  # of what is costly to count; many scrapers cost as much as one
SCRAPED_S = 180  # machines say how they are for so long after somebody asked: longer than scrapes lie apart
MAX_JOBS = 100_000
MAX_SERIES = 1000  # of one metric: more would be a fault of ours, and must not fill a Prometheus
KINDS = ("api", "stream")
FAULTS = sorted({error.status for error in ERRORS_BY_CODE.values() if error.status >= 500})


def metrics() -> str:
    """Everything, as Prometheus reads it. What cannot be read is left out, and ``ytserver_part_up`` says so."""
    families: list[Family] = []
    up: dict[str, bool] = {}
    for name, collect in COLLECTORS.items():
        try:
            families += collect()
            up[name] = True
        except (PyMongoError, mongoengine.ConnectionFailure, redis.RedisError, OSError) as error:
            logger.warning("metrics of %s cannot be read: %s", name, type(error).__name__)
            up[name] = False
    answers = [({"part": name}, int(is_up)) for name, is_up in up.items()]
    return render([*families, gauge("ytserver_part_up", "1 when this part's figures could be read.", answers)])


def _requests() -> list[Family]:
    totals = _totals()
    routes = {name.removeprefix("r:").split("|")[0] for name in totals if name.startswith("r:")}
    faults = (f"r:{route}|{status}" for route in routes for status in FAULTS)
    codes, tiers = (f"e:{code}" for code in ERRORS_BY_CODE), (f"t:{tier}" for tier in counting.TIERS)
    totals.update(dict.fromkeys((*faults, *codes, *tiers), 0))
    sent = [({"kind": kind}, totals[f"b:{kind}"]) for kind in KINDS]
    return [
        counter(
            "ytserver_requests_total",
            "Answers by route and HTTP status (499: the client left).",
            _labelled(totals, "r:", ("route", "status")),
        ),
        counter("ytserver_errors_total", "Answers by error code.", _labelled(totals, "e:", ("code",))),
        counter("ytserver_media_requests_total", "Answers by where the media was.", _labelled(totals, "t:", ("tier",))),
        counter("ytserver_sent_bytes_total", "Bytes of bodies, API answers and streams.", sent),
        _first_byte(totals),
    ]


def _totals() -> Counter[str]:
    found = cast("dict[bytes, bytes]", redis_client().hgetall(counting.TOTALS))
    return Counter({name.decode(): int(value) for name, value in found.items()})


def _labelled(totals: Counter[str], prefix: str, names: tuple[str, ...]) -> Iterable[tuple[dict[str, str], float]]:
    chosen = sorted(name for name in totals if name.startswith(prefix))[:MAX_SERIES]
    for name in chosen:
        yield dict(zip(names, name.removeprefix(prefix).split("|"), strict=True)), totals[name]


def _first_byte(totals: Counter[str]) -> Family:
    samples: list[tuple[str, dict[str, str], float]] = []
    for kind in KINDS:
        passed = 0
        for bucket, bound in zip(range(BUCKETS), [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"], strict=True):
            passed += totals[f"h:{kind}:{bucket}"]
            samples.append(("_bucket", {"kind": kind, "le": bound}, passed))
        samples.append(("_sum", {"kind": kind}, totals[f"hs:{kind}"] / 1_000_000))
        samples.append(("_count", {"kind": kind}, passed))
    text = "Time to first byte in seconds, waiting for a fetch included."
    return Family(name="ytserver_first_byte_seconds", kind="histogram", help=text, samples=list(samples))


def _live() -> list[Family]:
    now = live_figures()
    by_activity = [({"activity": name}, count) for name, count in now.users_by_activity.items()]
    return [
        gauge("ytserver_active_users", "Keys and addresses active in the last ten seconds.", now.users),
        gauge("ytserver_active_users_by_activity", "The same, by what they do.", by_activity),
        gauge("ytserver_open_streams", "Streams that are being sent.", now.streams),
        gauge("ytserver_open_websockets", "Websockets that are open.", now.websockets),
    ]


def _queues() -> list[Family]:
    waiting = redis_client().xlen(STREAM)
    idle = set(idle_queues())
    return [
        gauge(
            "ytserver_queue_messages",
            "Messages that wait for a worker.",
            [({"queue": queue}, length) for queue, length in waiting_messages().items()],
        ),
        gauge(
            "ytserver_queue_has_worker",
            "1 when a worker takes messages of this queue.",
            [({"queue": queue}, int(queue not in idle)) for queue in QUEUES],
        ),
        gauge("ytserver_events_waiting", "Events that are not in MongoDB yet.", waiting),
    ]


def _jobs() -> list[Family]:
    states = (JobState.QUEUED, JobState.RUNNING)
    counts = [({"state": state.value}, count_active_jobs(limit=MAX_JOBS, state=state)) for state in states]
    return [gauge("ytserver_jobs", "Fetches that wait or run.", counts)]


def _bots() -> list[Family]:
    found = Counter(bot.state_now for bot in all_bots())
    counts = [({"state": state.value}, found[state]) for state in BotState]
    return [gauge("ytserver_telegram_bots", "Telegram bots by state.", counts)]


def _hot_store() -> list[Family]:
    usage = hot_usage()
    folder = settings.ENV.hot_root
    while not folder.exists():
        folder = folder.parent
    return [
        gauge("ytserver_hot_store_bytes", "Bytes on the disk in the hot store.", usage.disk_bytes),
        gauge("ytserver_hot_store_max_bytes", "How large it may grow.", hot_max_bytes()),
        gauge("ytserver_hot_store_files", "Files in the hot store.", usage.files),
        gauge("ytserver_disk_free_bytes", "Free bytes where the hot store is.", shutil.disk_usage(folder).free),
    ]


def _machines() -> list[Family]:
    found = machines(for_s=SCRAPED_S)
    here = [one for one in found if not one.silent_s]

    def each(name: str, text: str, value: Callable[[Machine], float], of: list[Machine]) -> Family:
        return gauge(f"ytserver_machine_{name}", text, [({"machine": one.name}, value(one)) for one in of])

    return [
        each("up", "1 while a machine says how it is, 0 when it fell silent.", lambda one: not one.silent_s, found),
        each("cpu_ratio", "Use of its processors, from 0 to 1.", lambda one: one.cpu_percent / 100, here),
        each("memory_used_bytes", "Its memory in use.", lambda one: one.memory_used_bytes, here),
        each("memory_bytes", "Its memory.", lambda one: one.memory_total_bytes, here),
    ]


def _cache() -> list[Family]:
    rows = [(kind.kind, kind.count, kind.size_bytes, kind.in_telegram) for kind in recent_totals().by_kind]
    return [
        gauge("ytserver_cached_files", "Finished files.", [({"kind": row[0]}, row[1]) for row in rows]),
        gauge("ytserver_cached_bytes", "Their bytes.", [({"kind": row[0]}, row[2]) for row in rows]),
        gauge("ytserver_telegram_files", "Those kept in Telegram.", [({"kind": row[0]}, row[3]) for row in rows]),
    ]


def _kept(name: str, read: Callable[[], list[Any]]) -> list[Any]:
    return list(cache.get_or_set(f"metrics:{name}", read, FRESH_S) or ())


COLLECTORS: dict[str, Callable[[], list[Family]]] = {
    "requests": _requests,
    "live": _live,
    "queues": _queues,
    "jobs": _jobs,
    "bots": _bots,
    "hot_store": _hot_store,
    "machines": _machines,
    "cache": _cache,
}
