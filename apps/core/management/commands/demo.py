"""``manage.py demo``: the main job with stand-ins for the outside; no internet, nothing left behind."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.demo import Demo, DemoFailed


class Command(BaseCommand):
    help = "Show the whole job with stand-ins for YouTube and Telegram. The exit code is 0 only if every step held."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep", action="store_true", help="keep the temporary folder with data and logs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from tests.standins.demo import StandInWorld
        except ModuleNotFoundError as error:
            raise CommandError(f"the stand-ins need {error.name}: run `make demo`, which installs it") from None

        def say(line: str) -> None:
            self.stdout.write(line)
            self.stdout.flush()

        with _stoppable():
            try:
                with StandInWorld() as outside:
                    Demo(outside, say).run(keep=options["keep"])
            except DemoFailed as error:
                raise CommandError(f"NOT OK: {error}") from None
            except KeyboardInterrupt:
                raise CommandError("stopped; everything was cleaned up") from None
        say("Everything held.")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C. So does Ctrl-C where it was ignored: shells start what stands before ``&`` so."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
