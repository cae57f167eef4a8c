"""Settings that change while everything runs: a typed few, in MongoDB, in effect in every process within two seconds.

Where nothing is stored, the default holds; for some that is a setting of the environment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.conf import settings
from mongoengine.errors import MongoEngineException
from pymongo.errors import PyMongoError

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.documents import StoredTunable
from apps.core.errors import InvalidParameter, NotFound

POLL_S = 1.0
MIB = 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """A whole number that an operator may change. ``unit`` is what the number counts: s, bytes, or words."""

    name: str
    label: str
    help: str
    unit: str
    minimum: int
    maximum: int
    default: Callable[[], int]
    env_name: str = ""  # the setting of the environment that is the default

    def __call__(self) -> int:
        """The value that holds now. From memory: safe on the event loop, but for this process's very first question."""
        stored = _values().get(self.name)
        return self.default() if stored is None else stored

    def check(self, value: int) -> None:
        """Raises InvalidParameter, in words for a form."""
        if not self.minimum <= value <= self.maximum:
            text = f"This is a number from {self.minimum:,} to {self.maximum:,}."
            raise InvalidParameter(text, parameter=self.name)


link_ttl_s = Tunable(
    name="link_ttl_s",
    label="Life of links",
    help="How long a link to media works. Links that are out already keep their time.",
    unit="s",
    minimum=60,
    maximum=7 * 86400,
    default=lambda: settings.ENV.link_ttl_s,
    env_name="LINK_TTL_S",
)
hot_max_bytes = Tunable(
    name="hot_max_bytes",
    label="Size of the hot store",
    help="Above this, files that are safe in Telegram leave this server, least recently used first.",
    unit="bytes",
    minimum=MIB,
    maximum=1 << 50,
    default=lambda: settings.ENV.hot_max_bytes,
    env_name="HOT_MAX_BYTES",
)
limit_per_hour = Tunable(
    name="limit_per_hour",
    label="Requests an hour",
    help="For keys that neither have a limit of their own nor one of their user.",
    unit="requests",
    minimum=1,
    maximum=1_000_000_000,
    default=lambda: 1000,
)
max_active_jobs = Tunable(
    name="max_active_jobs",
    label="Jobs at once",
    help="How many fetches may run or wait in all. Further requests for new media are told to come back later.",
    unit="jobs",
    minimum=1,
    maximum=100_000,
    default=lambda: 5000,
)
max_active_jobs_per_key = Tunable(
    name="max_active_jobs_per_key",
    label="Jobs at once of one key",
    help="The same for each key, so that one cannot fill the line.",
    unit="jobs",
    minimum=1,
    maximum=100_000,
    default=lambda: 1000,
)
clips_per_day = Tunable(
    name="clips_per_day",
    label="Clips a day of one key",
    help="So many clips (start, end) may one key have made in a day; each is a file of its own.",
    unit="clips",
    minimum=1,
    maximum=1_000_000,
    default=lambda: 500,
)
verify_per_night = Tunable(
    name="verify_per_night",
    label="Files verified each night",
    help="So many stored files are read back from Telegram and compared with the record. 0: none.",
    unit="files",
    minimum=0,
    maximum=100_000,
    default=lambda: 100,
)
TUNABLES: Mapping[str, Tunable] = {
    item.name: item
    for item in (
        link_ttl_s,
        hot_max_bytes,
        limit_per_hour,
        max_active_jobs,
        max_active_jobs_per_key,
        clips_per_day,
        verify_per_night,
    )
}


def set_tunable(name: str, value: int | None, *, actor: str, address: str = "") -> bool:
    """Store a value; None goes back to the default. Returns whether that changed anything. It is in the audit log.

    Raises NotFound for an unknown name, and InvalidParameter.
    """
    item = TUNABLES.get(name)
    if item is None:
        raise NotFound(f"There is no such setting: {name}.")
    if value is not None:
        item.check(value)
    before = StoredTunable.objects(name=name).modify(upsert=True, new=False, set__value=value, set__changed_at=utcnow())
    _memory.read_now()
    old = before.value if before else None
    if old == value:
        return False
    words = {"value": item.default() if old is None else old}, {"value": item.default() if value is None else value}
    audit.record(
        actor=actor,
        action="setting.change",
        target_kind="setting",
        target_id=name,
        before=words[0],
        after=words[1],
        address=address,
    )
    return True


def stored_tunables() -> dict[str, int]:
    """The values that differ from the defaults because somebody set them, as MongoDB has them now."""
    return {item.name: item.value for item in StoredTunable.objects if item.value is not None and item.name in TUNABLES}


class _Memory:
    """This process's copy, read anew every POLL_S by one thread. While MongoDB is away, what was read last holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, int] = {}
        self._thread: threading.Thread | None = None

    def values(self) -> dict[str, int]:
        if self._thread is None or not self._thread.is_alive():  # the first question, also after a fork
            self._start()
        return self._values

    def read_now(self) -> None:
        try:
            self._values = stored_tunables()
        except (PyMongoError, MongoEngineException) as error:
            logger.warning("settings not read: %s", type(error).__name__)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self.read_now()
            self._thread = threading.Thread(target=self._poll, name="tunables", daemon=True)
            self._thread.start()

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_S)
            self.read_now()


_memory = _Memory()


def _values() -> dict[str, int]:
    return _memory.values()


def forget_tunables() -> None:
    """Read MongoDB again right now, in this process."""
    _memory.read_now()
