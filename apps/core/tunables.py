"""Settings that change while everything runs: a typed few, in MongoDB, in effect in every process within two seconds.

Where nothing is stored, the default holds; for some that is a setting of the environment.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from django.conf import settings
from mongoengine.errors import MongoEngineException, NotUniqueError
from pymongo.errors import PyMongoError

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.conditional import CHANGED_MEANWHILE
from apps.core.documents import StoredTunable
from apps.core.errors import Conflict, InvalidParameter, NotFound

POLL_S = 1.0
MIB = 1024 * 1024

logger = logging.getLogger(__name__)


class Group(StrEnum):
    """What belongs together on the settings page."""

    MEDIA = "Media"
    LIMITS = "Limits"
    DIALECTS = "Music-bot dialects"


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """A whole number that an operator may change.

    ``unit`` is what the number counts: s, bytes, words, or on_off for 1 (on) and 0 (off). ``env_name``: the setting of
    the environment that is the default, where there is one.
    """

    name: str
    group: Group
    label: str
    help: str
    unit: str
    limits: tuple[int, int]
    default: Callable[[], int]
    env_name: str = ""

    def __call__(self) -> int:
        """The value that holds now. From memory: safe on the event loop, but for this process's very first question."""
        stored = _memory.values().get(self.name)
        return self.default() if stored is None else stored

    def check(self, value: int) -> None:
        """Raises InvalidParameter, in words for a form."""
        least, most = self.limits
        if not least <= value <= most:
            raise InvalidParameter(f"This is a number from {least:,} to {most:,}.", parameter=self.name)


def _number(
    name: str, group: Group, label: str, help: str, unit: str, limits: tuple[int, int], default: int
) -> Tunable:
    return Tunable(
        name=name, group=group, label=label, help=help, unit=unit, limits=limits, default=lambda: default
    )  # fmt: skip


def _of_env(name: str, group: Group, label: str, help: str, unit: str, limits: tuple[int, int]) -> Tunable:
    """One whose default is the setting of the same name."""
    return Tunable(
        name=name, group=group, label=label, help=help, unit=unit, limits=limits, env_name=name.upper(),
        default=lambda: int(getattr(settings.ENV, name)),
    )  # fmt: skip


def _dialect(name: str, paths: str) -> Tunable:
    return Tunable(
        name=f"dialect_{name}", group=Group.DIALECTS, label=name, help=f"Answers {paths}", unit="on_off", limits=(0, 1),
        env_name="DIALECTS", default=lambda: int(name in settings.ENV.dialects),
    )  # fmt: skip


link_ttl_s = _of_env(
    "link_ttl_s", Group.MEDIA, "Life of links",
    "How long a link to media works. Links that are out already keep their time.", "s", (60, 7 * 86400),
)  # fmt: skip
hot_max_bytes = _of_env(
    "hot_max_bytes", Group.MEDIA, "Size of the hot store",
    "Above this, files that are safe in Telegram leave this server, least recently used first. All others stay.",
    "bytes", (MIB, 1 << 50),
)  # fmt: skip
verify_per_night = _number(
    "verify_per_night", Group.MEDIA, "Files verified each night",
    "So many stored files are read back from Telegram and compared with the record. 0: none.", "files",
    (0, 100_000), 100,
)  # fmt: skip
limit_per_hour = _number(
    "limit_per_hour", Group.LIMITS, "Requests an hour",
    "For keys that neither have a limit of their own nor one of their user.", "requests", (1, 1_000_000_000), 1000,
)  # fmt: skip
max_active_jobs = _number(
    "max_active_jobs", Group.LIMITS, "Jobs at once",
    "How many fetches may run or wait in all. Further requests for new media are told to come back later.", "jobs",
    (1, 100_000), 5000,
)  # fmt: skip
max_active_jobs_per_key = _number(
    "max_active_jobs_per_key", Group.LIMITS, "Jobs at once of one key",
    "The same for each key, so that one cannot fill the line.", "jobs", (1, 100_000), 1000,
)  # fmt: skip
clips_per_day = _number(
    "clips_per_day", Group.LIMITS, "Clips a day of one key",
    "So many clips (start, end) may one key have made in a day; each is a file of its own.", "clips", (1, 1_000_000),
    500,
)  # fmt: skip
dialects: Mapping[str, Tunable] = {
    name: _dialect(name, paths)
    for name, paths in (
        ("song", "/song/<id> and /video/<id>."),
        ("track", "/api/track."),
        ("v2", "/youtube/v2/download and its queue."),
        ("query", "/api/song."),
    )
}
TUNABLES: Mapping[str, Tunable] = {
    item.name: item
    for item in (
        link_ttl_s, hot_max_bytes, verify_per_night, limit_per_hour, max_active_jobs, max_active_jobs_per_key,
        clips_per_day, *dialects.values(),
    )
}  # fmt: skip


def set_tunable(
    name: str, value: int | None, *, seen: Mapping[str, int | None] | None = None, actor: str, address: str = ""
) -> bool:
    """Store a value; None goes back to the default. Returns whether that changed anything. It is in the audit log.

    Raises NotFound for an unknown name, and InvalidParameter. ``seen`` (as ``stored_tunables`` gave it): raises
    Conflict, and changes nothing, where this setting is no longer what it was.
    """
    item = TUNABLES.get(name)
    if item is None:
        raise NotFound(f"There is no such setting: {name}.")
    if value is not None:
        item.check(value)
    was = {} if seen is None else {"value": seen.get(name)}
    try:
        before = StoredTunable.objects(__raw__={"_id": name, **was}).modify(
            upsert=was.get("value") is None, new=False, set__value=value, set__changed_at=utcnow()
        )
    except NotUniqueError:
        raise Conflict(CHANGED_MEANWHILE) from None
    if before is None and was.get("value") is not None:
        raise Conflict(CHANGED_MEANWHILE)
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
        self._is_kept = False  # by a thread; to ask that itself would cost more than all else of a question
        os.register_at_fork(after_in_child=self._end)

    def values(self) -> dict[str, int]:
        if not self._is_kept:  # the first question, also after a fork
            self._start()
        return self._values

    def read_now(self) -> None:
        try:
            self._values = stored_tunables()
        except (PyMongoError, MongoEngineException) as error:
            logger.warning("settings not read: %s", type(error).__name__)

    def _start(self) -> None:
        with self._lock:
            if self._is_kept:
                return
            self.read_now()
            threading.Thread(target=self._poll, name="tunables", daemon=True).start()
            self._is_kept = True

    def _poll(self) -> None:
        try:
            while True:
                time.sleep(POLL_S)
                self.read_now()
        finally:
            self._end()

    def _end(self) -> None:
        self._is_kept = False


_memory = _Memory()


def forget_tunables() -> None:
    """Read MongoDB again right now, in this process."""
    _memory.read_now()
