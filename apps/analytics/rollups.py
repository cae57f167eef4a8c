"""Sums of events per minute, hour and day. Computing one again gives the same document: nothing is ever added to one.

Moving events marks their minutes. A computed minute marks its hour, and that its day; hours and days wait a little, so
that they are not computed anew for every batch. Minutes come from the events, hours from minutes, days from hours.
Until a stretch of time is over only the few sums that charts are made of are computed, so that each of the very many
sums by video is written once (``Span.segments`` asks for the finer ones of that time).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import groupby

from apps.analytics.documents import By, Grain, UsageEvent, UsageRollup, kept_for
from apps.analytics.periods import ceil, floor, length
from apps.analytics.rollup_marks import Lease, Mark, mark, marks, postpone, rollup_lease, unmark
from apps.analytics.summing import Sums, SumWriter, add, sums_of_events, sums_of_finer
from apps.core.clock import utcnow
from apps.core.errors import Conflict

WAIT_S = {Grain.MINUTE: 0.0, Grain.HOUR: 60.0, Grain.DAY: 600.0}
BUDGET_S = 60.0  # of one run; well below the lease, and what is left is done by the next one
CHARTED = (By.ALL, By.KEY, By.FIRST_BYTE)  # also of a stretch of time that is not over
FINER = {Grain.HOUR: Grain.MINUTE, Grain.DAY: Grain.HOUR}
COARSER = {finer: grain for grain, finer in FINER.items()}
MARGIN = timedelta(days=1)  # finer sums that are about to end are not counted on


def roll_up(*, now: datetime | None = None, wait: bool = True) -> int:
    """Compute what is out of date; return how many stretches of time. 0 when somebody else does it right now.

    ``wait`` False: also the hours and days that would wait a little, and every sum of those that are not over.
    """
    now = now or utcnow()
    deadline = time.monotonic() + BUDGET_S
    done = 0
    with rollup_lease() as mine:
        if mine is None:
            return 0
        for grain in Grain:
            for each in marks(grain, older_than_s=WAIT_S[grain] if wait else 0):
                if time.monotonic() > deadline:
                    return done
                _compute_marked(each, now, whole=not wait or each.start + length(grain) <= now)
                done += 1
    return done


def _compute_marked(each: Mark, now: datetime, *, whole: bool) -> None:
    """``whole`` False: only what charts need, and the mark stays for the rest."""
    with SumWriter() as writer:
        for sums in _computed(each, By if whole else CHARTED, now):
            writer.write(each.grain, each.start, sums)
    if coarser := COARSER.get(each.grain):
        mark(coarser, [floor(each.start, coarser)])
    if whole:
        unmark([each])
    else:
        postpone(each)


def _computed(each: Mark, kinds: Iterable[By], now: datetime) -> Iterator[Sums]:
    """The sums of these kinds, from the finer ones where those are still there, else from the events."""
    finer, end = FINER.get(each.grain), each.start + length(each.grain)
    there = [by for by in kinds if finer and now - each.start <= kept_for(finer, by) - MARGIN]
    if finer and there:
        yield sums_of_finer(finer, each.start, end, there)
    if missing := set(kinds) - set(there):
        for _, sums in sums_of_events(each.start, end, each.grain):
            yield {by: values for by, values in sums.items() if by in missing}


def rebuild(start: datetime, end: datetime) -> dict[str, int]:
    """Compute every sum of the range anew from the events, whole days of UTC; return how many it has then, by grain.

    New events are not summed while one day is; of a day with 333,000 events that is 20 to 60 s of processor time, on
    two cores at once. Raises Conflict while the periodic computation runs. Days whose first events have already ended
    (USAGE_KEPT_DAYS) are left as they are.
    """
    start, end = max(floor(start, Grain.DAY), oldest_whole_day()), ceil(end, Grain.DAY)
    day = start
    while day < end:
        with rollup_lease() as mine:
            if mine is None:
                raise Conflict("Sums are being computed right now. Try again in a minute.")
            _rebuild_day(day, mine)
        day += length(Grain.DAY)
    kinds = [by.value for by in By]
    within = UsageRollup.objects(by__in=kinds, start__gte=start, start__lt=end)
    return {grain.value: int(within.filter(grain=grain.value).count()) for grain in Grain}


def _rebuild_day(day: datetime, lease: Lease) -> None:
    """Every event of the day is read once: minutes are added up to hours, and hours to the day."""
    end, now = day + length(Grain.DAY), utcnow()
    finest = next(grain for grain in Grain if now - end < kept_for(grain, By.ALL))
    whole: Sums = {}
    with SumWriter() as writer:
        stretches = sums_of_events(day, end, finest)
        for hour, parts in groupby(stretches, lambda stretch: floor(stretch[0], Grain.HOUR)):
            added: Sums = {}
            for start, sums in parts:
                if finest is Grain.MINUTE:
                    writer.write(Grain.MINUTE, start, sums)
                add(added, sums)
            if finest is not Grain.DAY:
                writer.write(Grain.HOUR, hour, added)
            add(whole, added)
            lease.extend()
        writer.write(Grain.DAY, day, whole)


def oldest_whole_day() -> datetime:
    """The first UTC day of which every event is still there."""
    expiry = UsageEvent._get_collection().index_information().get("at_1", {}).get("expireAfterSeconds", 0)
    return ceil(utcnow() - timedelta(seconds=expiry), Grain.DAY)
