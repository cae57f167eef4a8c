"""How a program of ours ends when whoever started it, or reads what it says, has had enough: as a shell expects it,
without a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BROKEN_PIPE_EXIT = 141  # as a shell tells of a program that SIGPIPE ended
CTRL_C_EXIT = 130  # of one that SIGINT ended
CANNOT_WRITE_EXIT = 1
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def ended_as_shells_expect() -> Iterator[None]:
    """Ctrl-C, `| head` and a full disk end the program inside with an exit code and at most one line."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what waits for the interpreter's end fails there, with a traceback
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        raise SystemExit(CTRL_C_EXIT) from None
    except BrokenPipeError:
        say_nothing_more()
        raise SystemExit(BROKEN_PIPE_EXIT) from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        say_nothing_more()
        sys.stderr.write(f"Nothing more can be written: {error.strerror}.\n")
        raise SystemExit(CANNOT_WRITE_EXIT) from None


def say_nothing_more() -> None:
    """What is still to be flushed goes nowhere: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
