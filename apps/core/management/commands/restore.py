"""``manage.py restore``: put a backup back."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.backup import check_backup
from apps.core.command import clear_failures
from apps.core.restore import count_unreadable_secrets, restore_backup

AFTERWARDS = (
    "Everybody logs in again, with the passwords of that time. Keys that were revoked or deleted since work again: "
    "look through them."
)


class Command(BaseCommand):
    help = (
        "Put a backup back. The file is checked as a whole first; a broken one changes nothing. A database that holds "
        "something is left alone without --replace."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--replace", action="store_true", help="delete what the database holds now")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--check", action="store_true", help="only look whether the file is whole")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        with clear_failures():
            contents = check_backup(path)
            if not options["check"]:
                self._ask(path, contents.created_at, options)
                contents = restore_backup(path, replace=options["replace"])
            unreadable = 0 if options["check"] else count_unreadable_secrets()
        total = sum(contents.counts.values())
        done = "is whole" if options["check"] else "is restored"
        if options["json"]:
            said = {"created_at": contents.created_at, "counts": contents.counts, "unreadable_secrets": unreadable}
            self.stdout.write(json.dumps(said))
        else:
            self.stdout.write(f"{path} of {contents.created_at} {done}: {total} documents")
            if not options["check"]:
                self.stdout.write(AFTERWARDS)
        if unreadable:
            self.stderr.write(f"{unreadable} stored secrets cannot be read: put the FIELD_KEYS of that time back.")

    def _ask(self, path: Path, created_at: str, options: dict[str, Any]) -> None:
        if options["yes"]:
            return
        if not sys.stdin.isatty():
            raise CommandError("Say --yes: there is nobody to ask.")
        what = "REPLACES what the database holds now" if options["replace"] else "fills the empty database"
        self.stdout.write(f"{path} of {created_at} {what}. Type restore to go on: ", ending="")
        self.stdout.flush()
        if sys.stdin.readline().strip() != "restore":
            raise CommandError("Nothing was changed.")
