"""``manage.py web``: only the web server, for nodes whose MongoDB, Redis and workers run elsewhere."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.core.instance import raise_file_limit
from apps.core.listener import bind_listener
from apps.core.programs import web_programs
from apps.core.supervisor import Supervisor


class Command(BaseCommand):
    help = "Start only the web server, WEB_WORKERS processes on HOST and PORT. MongoDB and Redis must be there."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=_port, help="listen on this port instead of PORT")

    def handle(self, *args: Any, **options: Any) -> None:
        env = settings.ENV
        port = options["port"] or env.port
        if not settings.SERVICES.mongo_uri or not settings.SERVICES.redis_url:
            raise CommandError("set MONGO_URI and REDIS_URL, or start everything with manage.py up")
        try:
            listener = bind_listener(env.host, port)
        except OSError as error:
            raise CommandError(f"cannot listen on {env.host}, port {port} ({error.strerror})") from None
        if warning := raise_file_limit():
            self.stderr.write(f"Note: {warning}")
        supervisor = Supervisor(self.stderr.write)
        with supervisor.listening_to_signals():
            try:
                for program in web_programs(env, listener_fd=listener.fileno()):
                    supervisor.start(program)
                self.stderr.write(f"Serving on {env.host}, port {port}. Stop with Ctrl-C.")
                supervisor.run()
            finally:
                listener.close()
                supervisor.stop()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)
