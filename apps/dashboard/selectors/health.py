"""Whether each part of the server answers, in words. Nothing here raises: what is down is the news."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import mongoengine
import redis
from django.conf import settings
from django_redis.exceptions import ConnectionInterrupted
from pymongo.errors import PyMongoError

from apps.core.clock import utcnow
from apps.core.heartbeats import QUEUES, idle_queues
from apps.core.redis import redis_client
from apps.core.room import room_of
from apps.core.tunables import hot_max_bytes
from apps.dashboard.templatetags.ui import human_bytes, relative
from apps.downloads.services.provider_settings import ProviderView, view_providers
from apps.streaming.usage import hot_usage, is_over
from apps.telegram_cache.documents import BotState, TelegramChannel
from apps.telegram_cache.selectors import all_bots

PING_TIMEOUT_MS = 2000
MAX_REASON = 160
SOURCE_NAMES = {"savetube": "SaveTube", "ytdlp": "yt-dlp"}


@dataclass(frozen=True, kw_only=True)
class Health:
    """One part. ``tone``: success, warning or danger."""

    name: str
    icon: str
    tone: str
    text: str

    @property
    def word(self) -> str:
        return {"success": "fine", "warning": "attention", "danger": "down"}[self.tone]


def health() -> list[Health]:
    """Every part of the server, most basic first."""
    return [*parts_that_take_time(), telegram_health()]


def parts_that_take_time() -> list[Health]:
    """Those that others have to be asked about, for who looks each second."""
    return [_mongodb(), _redis(), _workers(), _disk(), _hot_store(), *_sources()]


def _mongodb() -> Health:
    def ping() -> str:
        mongoengine.get_db().command("ping", maxTimeMS=PING_TIMEOUT_MS)
        return ""

    return _timed("MongoDB", "database", ping)


def _redis() -> Health:
    def ping() -> str:
        info = redis_client().info("memory")
        return f", {human_bytes(info['used_memory'])} of memory"

    return _timed("Redis", "zap", ping)


def _timed(name: str, icon: str, ping: Callable[[], str]) -> Health:
    started = time.perf_counter()
    try:
        more = ping()
    except (PyMongoError, redis.RedisError, OSError):
        return Health(name=name, icon=icon, tone="danger", text="Does not answer. Run manage.py doctor.")
    milliseconds = (time.perf_counter() - started) * 1000
    return Health(name=name, icon=icon, tone="success", text=f"Answers in {milliseconds:.1f} ms{more}")


def _workers() -> Health:
    name, icon = "Workers", "cpu"
    try:
        idle = idle_queues()
    except (redis.RedisError, OSError):
        return Health(name=name, icon=icon, tone="danger", text="Not known while Redis is down.")
    if not idle:
        return Health(name=name, icon=icon, tone="success", text="Every queue has somebody working on it")
    text = f"Nobody works on: {', '.join(idle)}. Start a worker, or see its log."
    return Health(name=name, icon=icon, tone="danger" if len(idle) == len(QUEUES) else "warning", text=text)


def _disk() -> Health:
    folder = settings.ENV.hot_root
    while not folder.exists():
        folder = folder.parent
    room = room_of(folder)
    text = f"{human_bytes(room.free_bytes)} free where the hot store is"
    if room.is_full:
        text = f"Full: {text}. New files wait until there is room. Run manage.py doctor."
        return Health(name="Disk", icon="hard-drive", tone="danger", text=text)
    tone = "success" if room.free_bytes > 2 * room.kept_free_bytes else "warning"
    return Health(name="Disk", icon="hard-drive", tone=tone, text=text)


def _hot_store() -> Health:
    name, icon = "Hot store", "archive"
    try:
        usage = hot_usage()
        bound = hot_max_bytes()
    except (PyMongoError, redis.RedisError, ConnectionInterrupted, OSError):
        return Health(name=name, icon=icon, tone="danger", text="Not known while MongoDB, Redis or the disk is down.")
    size = human_bytes(usage.disk_bytes)
    if not is_over(usage, bound):
        return Health(name=name, icon=icon, tone="success", text=f"{size} of {human_bytes(bound)}")
    text = (
        f"{size}, more than the {human_bytes(bound)} it may have: what is not safe in Telegram"
        " stays. It grows until the disk is full. See the Telegram page."
    )
    return Health(name=name, icon=icon, tone="warning", text=text)


def _sources() -> list[Health]:
    """Each outside source that is in use: when it answered last, when it failed last and with what."""
    icon = "shuffle"
    try:
        views = view_providers()
    except (PyMongoError, redis.RedisError, OSError):
        return [Health(name="Sources", icon=icon, tone="danger", text="Not known while MongoDB or Redis is down.")]
    used = [view for view in views if view.enabled]
    if not used:
        return [Health(name="Sources", icon=icon, tone="danger", text="All are switched off. See the Sources page.")]
    return [
        Health(
            name=SOURCE_NAMES.get(view.name, view.name), icon=icon, tone=_source_tone(view), text=_source_words(view)
        )
        for view in used
    ]


def _source_tone(view: ProviderView) -> str:
    answered, failed = view.health.last_answer_at or 0.0, view.health.last_failure_at or 0.0
    if failed <= answered:
        return "success"
    return "danger" if view.health.paused_until else "warning"


def _source_words(view: ProviderView) -> str:
    health = view.health
    if health.last_answer_at is None and health.last_failure_at is None:
        return "Not asked in the last 7 days"
    answered = f"Last answer {_ago(health.last_answer_at)}" if health.last_answer_at else "No answer in the last 7 days"
    failed = "no failure"
    if health.last_failure_at:
        failed = f"last failure {_ago(health.last_failure_at)}: {_reason(view)}"
    resting = ". Left alone for a while after failing again and again" if health.paused_until else ""
    return f"{answered}, {failed}{resting}"


def _reason(view: ProviderView) -> str:
    errors = view.last_errors
    text = str(errors[0]["message"]) if errors else ""
    return (text or view.health.last_error)[:MAX_REASON].rstrip(".")


def _ago(at: float) -> str:
    return relative(datetime.fromtimestamp(at, UTC), utcnow())


def telegram_health() -> Health:
    """As the record is now: two small reads."""
    name, icon = "Telegram", "send"
    try:
        states = Counter(bot.state_now for bot in all_bots())
        channels = TelegramChannel.objects(state=BotState.ACTIVE.value).count()
    except PyMongoError:
        return Health(name=name, icon=icon, tone="danger", text="Not known while MongoDB is down.")
    active, cooling = states[BotState.ACTIVE], states[BotState.COOLING]
    if not states:
        return Health(name=name, icon=icon, tone="warning", text="Off: no bot yet, so nothing is kept for good")
    if cooling and not active and channels:
        text = "Every bot that is in use rests for a while, because Telegram asked for it"
        return Health(name=name, icon=icon, tone="warning", text=text)
    if not active or not channels:
        what = "bot" if not active else "channel"
        return Health(name=name, icon=icon, tone="danger", text=f"No {what} can be used. See the Telegram page.")
    resting = states.total() - active
    text = f"{active} of {active + resting} bots usable, {channels} {'channel' if channels == 1 else 'channels'}"
    return Health(name=name, icon=icon, tone="warning" if resting else "success", text=text)
