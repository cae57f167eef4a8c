"""What every command of ours does the same way: one clear line and a non-zero exit when it fails."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from apps.core.api_errors import to_api_error
from apps.core.errors import ApiError, NotReady

SERVICES_HINT = (
    "MongoDB or Redis does not answer. Is the server running (`manage.py up`)? Else check MONGO_URI, REDIS_URL."
)


def shell_actor() -> str:
    """Who runs this command, for the audit log: the name of the shell's user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        name = f"uid {os.getuid()}"
    return f"{name} (command line)"


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn errors that people can do something about into one line. Any other is a fault: it keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise  # `| head` has seen enough: ``ending`` knows how a program ends then
    except Exception as error:
        api_error = to_api_error(error)
        if api_error is None:
            raise
        if isinstance(api_error, NotReady) and not isinstance(error, ApiError):
            raise CommandError(SERVICES_HINT) from None
        raise CommandError(api_error.message) from None
