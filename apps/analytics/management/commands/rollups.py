"""``manage.py rollups``: compute the sums of events anew."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.analytics.rollups import rebuild, roll_up
from apps.core.clock import utcnow
from apps.core.command import clear_failures


class Command(BaseCommand):
    help = "Sums of events (usage_rollups): update those out of date, or compute a range anew from the events."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        actions.add_parser("update", help="compute everything that is out of date now, also what would wait a little")
        again = actions.add_parser("rebuild", help="compute every sum of a range anew, whole days of UTC")
        again.add_argument("--from", dest="start", help="first day, such as 2026-01-31 (default: 30 days ago)")
        again.add_argument("--to", dest="end", help="last day, included (default: today)")
        again.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "update":
            with clear_failures():
                count = roll_up(wait=False)
            self.stdout.write(f"{count} stretches of time computed")
            return
        now = utcnow()
        start = _day(options["start"]) if options["start"] else now - timedelta(days=30)
        end = _day(options["end"]) + timedelta(days=1) if options["end"] else now
        if start >= end:
            raise CommandError("--from must not be after --to")
        with clear_failures():
            made = rebuild(start, end)
        if options["json"]:
            self.stdout.write(json.dumps(made))
        else:
            self.stdout.write(", ".join(f"{count} by the {grain}" for grain, count in made.items()))


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise CommandError(f"not a day: {text} (as in 2026-01-31)") from None
