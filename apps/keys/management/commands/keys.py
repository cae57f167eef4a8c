"""``manage.py keys export|import``: users and keys as JSON lines, to move them to another server."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR
from apps.keys.transfer import export_lines, import_lines


class Command(BaseCommand):
    help = (
        "Export users and API keys as JSON lines to standard output, or import them from standard input. The lines "
        "hold hashes of secrets, never secrets: the keys go on working on the other server. Passwords, roles and "
        "webhooks stay here."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        actions.add_parser("export", help="write JSON lines to standard output")
        reading = actions.add_parser("import", help="read JSON lines from standard input")
        reading.add_argument("--replace", action="store_true", help="change keys and users that are there already")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            if options["action"] == "export":
                for line in export_lines():
                    self.stdout.write(line)
                return
            done = import_lines(sys.stdin, replace=options["replace"], actor=ACTOR)
        self.stdout.write(f"{done.added} added, {done.replaced} replaced, {done.skipped} there already.")
