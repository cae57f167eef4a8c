"""What every command of ours does the same way: one clear line and a non-zero exit when it fails."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError, OutputWrapper

from apps.core.api_errors import to_api_error
from apps.core.ending import say_nothing_more
from apps.core.outages import outage_of


def show_once(out: OutputWrapper, text: str, *, otherwise: str) -> None:
    """Write what cannot be read again. If nobody can read it, raises CommandError with what to do ``otherwise``."""
    try:
        out.write(text)
        out.flush()
    except OSError as error:
        say_nothing_more()
        raise CommandError(f"It could not be shown ({error.strerror}): {otherwise}") from None


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
    except Exception as error:  # what people can do something about; any other is raised again
        if outage := outage_of(error):
            raise CommandError(outage.for_operators) from None
        api_error = to_api_error(error)
        if api_error is None:
            raise
        raise CommandError(api_error.message) from None
