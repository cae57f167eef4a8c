"""``manage.py delete_key``: delete an API key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR
from apps.keys.changes import delete_key


class Command(BaseCommand):
    help = "Delete an API key. It and its links stop within a second; what it used stays counted."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", help="the 8 characters after yt_ (list_keys shows them)")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            delete_key(options["prefix"], actor=ACTOR)
        self.stdout.write(f"Deleted {options['prefix']}.")
