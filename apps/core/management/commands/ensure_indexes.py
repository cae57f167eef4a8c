"""``manage.py ensure_indexes``: make every index of the database that is missing, drop those that were replaced."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import pymongo.errors
from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.core.indexes import ensure_indexes


class Command(BaseCommand):
    help = "Make every index that is missing, drop replaced ones. Can be repeated; run it before new versions serve."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the index names of each collection as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        say = self.stderr.write if options["json"] else self.stdout.write
        try:
            with clear_failures():
                made = ensure_indexes(lambda line: say(line))
        except pymongo.errors.PyMongoError as error:
            raise CommandError(f"MongoDB refused: {error}") from None
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for collection, names in made.items():
            self.stdout.write(f"{collection}: {', '.join(names)}")
