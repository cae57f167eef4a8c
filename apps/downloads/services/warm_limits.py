"""When and how much may be fetched ahead of time: quiet hours and limits, which the admin owns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo, available_timezones

from pymongo.errors import DuplicateKeyError

from apps.core.clock import utcnow
from apps.core.conditional import CHANGED_MEANWHILE, still
from apps.core.errors import Conflict, InvalidParameter
from apps.downloads.warm_documents import WarmUpLimits

LIMITS_ID = "limits"
BOUNDS = {"at_once": (1, 50), "max_per_hour": (1, 10_000), "max_bytes_per_day": (1, 100 * 1024**4)}
_HOUR = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)


def warm_limits() -> WarmUpLimits:
    """The limits in force."""
    return cast("WarmUpLimits", WarmUpLimits.objects(id=LIMITS_ID).first() or WarmUpLimits(id=LIMITS_ID))


def save_warm_limits(*, seen: Mapping[str, Any] | None = None, **fields: Any) -> WarmUpLimits:
    """Change some limits. Raises InvalidParameter, which names the field. ``seen``: raises Conflict, and changes
    nothing, where these limits are no longer what they were.
    """
    for name, value in fields.items():
        if name in BOUNDS:
            low, high = BOUNDS[name]
            if not low <= value <= high:
                raise InvalidParameter(f"From {low:,} to {high:,}.", parameter=name)
        elif name == "time_zone":
            if value not in available_timezones():
                raise InvalidParameter("A time zone such as Europe/Berlin or UTC.", parameter=name)
        elif not _HOUR.fullmatch(value):
            raise InvalidParameter("A time of day such as 01:30.", parameter=name)
    change = {"$set": {**fields, "updated_at": utcnow()}}
    defaults = WarmUpLimits(id=LIMITS_ID)
    as_seen = still(seen, defaults={name: getattr(defaults, name) for name in seen or ()})
    try:
        WarmUpLimits._get_collection().update_one({"_id": LIMITS_ID, **as_seen}, change, upsert=True)
    except DuplicateKeyError:  # they are stored, and others
        raise Conflict(CHANGED_MEANWHILE) from None
    return warm_limits()


def is_quiet(limits: WarmUpLimits, now: datetime) -> bool:
    """Whether ``now`` lies in the quiet hours, which may go over midnight."""
    start, end = _times(limits)
    local = now.astimezone(ZoneInfo(limits.time_zone)).time()
    if start == end:
        return True
    return start <= local < end if start < end else local >= start or local < end


def next_quiet(limits: WarmUpLimits, now: datetime) -> datetime:
    """When the quiet hours begin next; ``now`` while they last."""
    if is_quiet(limits, now):
        return now
    start, _ = _times(limits)
    local = now.astimezone(ZoneInfo(limits.time_zone))
    begins = local.replace(hour=start.hour, minute=start.minute, second=0, microsecond=0)
    return begins if begins > local else begins + timedelta(days=1)


def _times(limits: WarmUpLimits) -> tuple[time, time]:
    return time.fromisoformat(limits.quiet_from), time.fromisoformat(limits.quiet_until)
