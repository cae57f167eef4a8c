"""A range of time that somebody asks about, and how it is cut: into steps of a chart, and into sums that exist."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from apps.analytics.documents import By, Grain, kept_for
from apps.analytics.periods import ceil, floor, length
from apps.core.clock import utcnow
from apps.core.errors import InvalidParameter

RANGES = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
LONGEST = timedelta(days=3 * 366)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
MARGIN = timedelta(hours=2)  # sums that are about to end are not counted on
SETTLED = {Grain.HOUR: timedelta(minutes=5), Grain.DAY: timedelta(minutes=30)}  # younger sums may still change
STEPS = (  # up to this length: this step, made of sums of this grain
    (timedelta(hours=1), 60, Grain.MINUTE),
    (timedelta(hours=6), 300, Grain.MINUTE),
    (timedelta(days=2), 900, Grain.MINUTE),
    (timedelta(days=10), 3600, Grain.HOUR),
)
DAY_STEP_S = 86400
NO_PLACES = frozenset({"Factory", "localtime", "posixrules"})  # of the tz database; no browser knows them


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a range that is answered from sums of one grain."""

    grain: Grain
    start: datetime
    end: datetime

    def starts(self) -> list[datetime]:
        """The starts of its sums."""
        step = length(self.grain)
        return [self.start + number * step for number in range((self.end - self.start) // step)]


@dataclass(frozen=True, kw_only=True)
class Span:
    """[start, end) in UTC, on the borders of the sums it is answered from. ``zone``: the one that days are cut in.

    Days of a chart are made of hours, so in zones that are not whole hours from UTC they begin up to 45 minutes off.
    """

    start: datetime
    end: datetime
    zone: ZoneInfo
    step_s: int  # of the chart; DAY_STEP_S: days of the zone
    grain: Grain  # of the sums that the chart is made of

    def steps(self) -> list[datetime]:
        """The starts of the chart's steps, oldest first."""
        if self.step_s != DAY_STEP_S:
            first = int(self.start.timestamp()) // self.step_s
            last = (int(self.end.timestamp()) - 1) // self.step_s
            return [datetime.fromtimestamp(number * self.step_s, UTC) for number in range(first, last + 1)]
        day = self.start.astimezone(self.zone).date()
        starts: list[datetime] = []
        while (start := datetime(day.year, day.month, day.day, tzinfo=self.zone)) < self.end:
            starts.append(start.astimezone(UTC))
            day += timedelta(days=1)
        return starts

    def segments(self, by: By, *, now: datetime | None = None) -> list[Segment]:
        """The few sums that make up the range: days inside, hours and minutes at its ends and of what is not over.

        Videos of long ago only have sums of whole hours, then of whole UTC days: the range is widened to those.
        """
        now = now or utcnow()
        grains = [
            grain for grain in (self.grain, *_COARSER[self.grain]) if grain is Grain.DAY or self._has(grain, by, now)
        ]
        finest = grains[0]
        end = min(ceil(self.end, finest), ceil(now, Grain.MINUTE) + length(Grain.MINUTE))
        return _cut(floor(self.start, finest), end, grains, now)

    def _has(self, grain: Grain, by: By, now: datetime) -> bool:
        return self.start > now - kept_for(grain, by) + MARGIN


_COARSER = {Grain.MINUTE: (Grain.HOUR, Grain.DAY), Grain.HOUR: (Grain.DAY,), Grain.DAY: ()}
_FINER = {Grain.HOUR: [Grain.MINUTE], Grain.DAY: [Grain.MINUTE, Grain.HOUR]}


def _cut(start: datetime, end: datetime, grains: list[Grain], now: datetime) -> list[Segment]:
    """``grains``: finest first; ``start`` and ``end`` lie on borders of the finest, or ``end`` is about now."""
    if start >= end:
        return []
    *finer, grain = grains
    finer = finer or _FINER.get(grain, [])  # only charts have coarse sums of what is not over
    if not finer:
        return [Segment(grain=grain, start=start, end=end)]
    first, last = ceil(start, grain), floor(min(end, max(start, now - SETTLED[grain])), grain)
    if first >= last:
        return _cut(start, end, finer, now)
    inside = Segment(grain=grain, start=first, end=last)
    return [*_cut(start, first, finer, now), inside, *_cut(last, end, finer, now)]


@cache
def zone_names() -> tuple[str, ...]:
    """Every time zone that can be chosen, by name. Read from files once."""
    return tuple(sorted(available_timezones() - NO_PLACES))


def read_zone(name: str) -> ZoneInfo:
    """The time zone of a name such as Europe/Berlin. Raises InvalidParameter."""
    if name not in zone_names():
        raise InvalidParameter("zone: must be a time zone such as UTC or Europe/Berlin.", parameter="zone")
    return ZoneInfo(name)


def named_span(name: str, *, zone: ZoneInfo, now: datetime | None = None) -> Span:
    """One of RANGES, up to now. Raises InvalidParameter."""
    if name not in RANGES:
        raise InvalidParameter(f"range: must be one of {', '.join(RANGES)}.", parameter="range")
    now = now or utcnow()
    return make_span(now - RANGES[name], now, zone=zone, now=now)


def make_span(start: datetime, end: datetime, *, zone: ZoneInfo, now: datetime | None = None) -> Span:
    """Any range, widened to whole minutes, hours or days of ``zone``. Raises InvalidParameter."""
    now = now or utcnow()
    if not all(EARLIEST <= moment <= now + LONGEST for moment in (start, end)):
        raise InvalidParameter("start: there are no figures of such a time.", parameter="start")
    start, end = start.astimezone(UTC), end.astimezone(UTC)  # within one zone Python counts as its clocks show
    if start >= end:
        raise InvalidParameter("start: must lie before end.", parameter="start")
    wide = end - start
    if wide > LONGEST:
        raise InvalidParameter("start: the range may be three years at most.", parameter="start")
    step_s, grain = next(((step, grain) for longest, step, grain in STEPS if wide <= longest), (DAY_STEP_S, Grain.HOUR))
    if grain is Grain.MINUTE and start <= now - kept_for(Grain.MINUTE, By.ALL) + MARGIN:
        step_s, grain = 3600, Grain.HOUR
    if start <= now - kept_for(Grain.HOUR, By.ALL) + MARGIN:
        step_s, grain, zone = DAY_STEP_S, Grain.DAY, ZoneInfo("UTC")
    return Span(start=floor(start, grain), end=ceil(end, grain), zone=zone, step_s=step_s, grain=grain)
