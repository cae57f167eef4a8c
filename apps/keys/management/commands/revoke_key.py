"""``manage.py revoke_key``: switch an API key off for good."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import audit
from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR
from apps.keys.services import revoke_key


class Command(BaseCommand):
    help = "Switch an API key off for good. Its links stop as well, everywhere, within a second."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", help="the 8 characters after yt_ (list_keys shows them)")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            revoke_key(options["prefix"])
            audit.record(actor=ACTOR, action="key.revoke", target_kind="key", target_id=options["prefix"])
        self.stdout.write(f"Revoked {options['prefix']}.")
