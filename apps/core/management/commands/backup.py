"""``manage.py backup``: everything durable in MongoDB as one file."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.backup import write_backup
from apps.core.command import clear_failures


class Command(BaseCommand):
    help = (
        "Write everything durable in MongoDB to one file (gzipped JSON lines, mode 0600), while the server runs. "
        "Secrets stay encrypted and hashed: keep FIELD_KEYS too. The media lies in Telegram and in the hot store."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="where to write it, such as backup.jsonl.gz")
        parser.add_argument("--without-usage", action="store_true", help="leave events and statistics out")
        parser.add_argument("--overwrite", action="store_true", help="replace the file when it is there already")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        with clear_failures():
            contents = write_backup(path, with_usage=not options["without_usage"], overwrite=options["overwrite"])
        size_bytes = path.stat().st_size
        if options["json"]:
            self.stdout.write(json.dumps({"file": str(path), "size_bytes": size_bytes, "counts": contents.counts}))
        else:
            total = sum(contents.counts.values())
            self.stdout.write(f"{path}: {total} documents of {len(contents.counts)} collections, {size_bytes} bytes")
