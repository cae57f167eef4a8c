"""``manage.py update_key``: change an API key, or switch it off and on."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.keys.arguments import ACTOR, add_key_arguments, key_fields
from apps.keys.changes import switch_key, update_key


class Command(BaseCommand):
    help = "Change what you name of an API key, everywhere within a second. What you don't name stays as it is."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", help="the 8 characters after yt_ (list_keys shows them)")
        parser.add_argument("--name", help="what the key is for")
        parser.add_argument("--never-expires", action="store_true", help="take its end away")
        switch = parser.add_mutually_exclusive_group()
        switch.add_argument("--on", dest="active", action="store_const", const=True, help="switch it on")
        switch.add_argument("--off", dest="active", action="store_const", const=False, help="switch it off for now")
        add_key_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        fields = key_fields(options)
        if options["name"] is not None:
            fields["name"] = options["name"]
        if options["never_expires"]:
            fields["expires_at"] = None
        if not fields and options["active"] is None:
            raise CommandError("Say what to change: see --help.")
        with clear_failures():
            if fields:
                update_key(options["prefix"], fields, actor=ACTOR)
            if options["active"] is not None:
                switch_key(options["prefix"], active=options["active"], actor=ACTOR)
        self.stdout.write(f"Changed {options['prefix']}.")
