"""What web processes and workers import, and when.

A web process listens once it has imported what it answers with (``import_web``). Some requests need more (to send a
task, to ask Telegram): a thread imports that behind (``import_rest_of_web``), so that no caller waits for it. For this,
those packages are imported inside the functions that use them. The nursery of ``up`` imports all of it before
it forks.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

WEB = ("ytserver.asgi", "uvicorn", "uvicorn.loops.uvloop", "apps.core.web_protocol")
REST_OF_WEB = ("ytserver.celery", "kombu.transport.redis", "apps.core.outbound_aiohttp", "httpx", "httpcore")
WORKER = ("celery.bin.celery", "celery.apps.worker", "celery.concurrency.thread", "celery.beat")
EXTRAS = {
    "structlog": ("rich", "twisted"),  # to show tracebacks in colour, and to write to Twisted's log
    "rest_framework.compat": ("requests",),  # for a client in tests
    "pymongo.ssl_support": ("pymongo.pyopenssl_context",),  # OpenSSL beside Python's own ssl
}
"""Libraries, and what they import when it happens to be installed, though nothing here uses it."""


def import_web() -> None:
    """Django with every view and the ASGI application: all that is needed before the first answer. Call it before
    anything else of the program is imported."""
    import django
    from django.conf import settings

    import_without_extras(mongo_uri=settings.SERVICES.mongo_uri)
    django.setup()
    for name in (settings.ROOT_URLCONF, *WEB):
        import_module(name)


def import_rest_of_web() -> None:
    for name in REST_OF_WEB:
        import_module(name)


def import_celery() -> Celery:
    """The application of Celery, imported now if it was not before.

    Nothing else of Celery may be imported before it returns. Celery swaps its first module at the end of that module:
    of two threads that import it by themselves, the one that waits finds the old one, empty. Here Python lets it wait
    for our own module instead.
    """
    app: Celery = import_module("ytserver.celery").app
    return app


def import_worker() -> None:
    """After ``import_web``."""
    for name in WORKER:
        import_module(name)
    import_module("ytserver.celery").app.loader.import_default_modules()


def import_without_extras(*, mongo_uri: str | None) -> None:
    """Import libraries as if their extras were not installed: with them a start takes a seventh longer. A connection
    to MongoDB by TLS keeps its own. Extras that were imported before stay; others can be imported afterwards."""
    for library, extras in EXTRAS.items():
        if library == "pymongo.ssl_support" and _is_by_tls(mongo_uri or ""):
            continue
        hidden = [name for name in extras if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: Python says that it is not there
        try:
            import_module(library)
        finally:
            for name in hidden:
                del sys.modules[name]


def _is_by_tls(mongo_uri: str) -> bool:
    options = mongo_uri.partition("?")[2].lower()
    return mongo_uri.startswith("mongodb+srv://") or "tls" in options or "ssl" in options
