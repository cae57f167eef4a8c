"""``manage.py up``: the whole server, with embedded MongoDB and Redis where no address is given."""

from __future__ import annotations

import json
import os
import socket
import time
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pymongo.errors
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.core.instance import Instance, InstanceError
from apps.core.launcher import Launcher, StartFailed, local_url
from apps.core.listener import bind_listener
from apps.core.outages import outage_of
from apps.core.supervisor import StopAsked
from ytserver.startup import FirstStart, prepare_database


class Command(BaseCommand):
    help = "Start everything: embedded servers where no URI is given, web, workers. Ctrl-C stops all."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON line when ready, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        started_at = time.monotonic()
        say = self.stderr.write if options["json"] else self.stdout.write
        env = settings.ENV
        with ExitStack() as stack:
            try:
                instance = Instance.claim(env.var_dir)
                stack.callback(instance.release)
                listener = _bind(env.host, env.port)
            except (InstanceError, StartFailed) as error:
                raise CommandError(str(error)) from None
            launcher = Launcher(env, lambda line: say(line))
            stack.enter_context(launcher.supervisor.listening_to_signals())
            stack.callback(launcher.stop, listener)
            try:
                say(f"Starting in {env.var_dir} ...")
                first_start = launcher.launch(instance, listener, lambda: _prepared(lambda line: say(line)))
                self._announce(first_start, seconds=time.monotonic() - started_at, as_json=options["json"])
                launcher.run()
                say("Stopping ...")
            except StopAsked:
                say("Stopping before everything had started ...")
            except StartFailed as error:
                raise CommandError(str(error)) from None
        say("Stopped.")

    def _announce(self, first_start: FirstStart | None, *, seconds: float, as_json: bool) -> None:
        env = settings.ENV
        if as_json:
            ready: dict[str, Any] = {"url": local_url(env), "pid": os.getpid(), "var_dir": str(env.var_dir)}
            ready["public_url"] = env.base_url
            ready["first_start"] = None
            if first_start:
                ready["first_start"] = {
                    "username": first_start.username,
                    "password": first_start.password,
                    "api_key": first_start.api_key,
                }
            self.stdout.write(json.dumps(ready))
        else:
            self.stdout.write(f"Ready after {seconds:.1f} s: {env.base_url}  (API pages: {env.base_url}/api/docs)")
            if first_start:
                self._show_secrets(first_start)
            self.stdout.write("Stop with Ctrl-C.")
        self.stdout.flush()

    def _show_secrets(self, first_start: FirstStart) -> None:
        self.stdout.write(
            "\nThis is the first start. Write these down, they are not shown again:\n"
            f"  admin name      {first_start.username}\n"
            f"  admin password  {first_start.password}\n"
            f"  API key         {first_start.api_key}\n"
            "Try it:\n"
            f"  curl -H 'X-API-Key: {first_start.api_key}' '{settings.ENV.base_url}/api/v1/status'\n"
        )


def _bind(host: str, port: int) -> socket.socket:
    try:
        return bind_listener(host, port)
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {host}, port {port} ({error.strerror}): stop what uses it, or set another HOST or PORT"
        ) from None


def _prepared(say: Callable[[str], None]) -> FirstStart | None:
    try:
        return prepare_database(say)
    except pymongo.errors.PyMongoError as error:
        if outage := outage_of(error):
            raise StartFailed(f"{outage.what}: check MONGO_URI") from None
        raise StartFailed(f"MongoDB refused ({type(error).__name__}): {error}") from None
