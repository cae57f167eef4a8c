"""What all commands do the same way."""

from __future__ import annotations

import subprocess
import sys

ENDLESS = """
from apps.core.command import clear_failures
with clear_failures():
    while True:
        print("a line")
"""


def test_a_reader_that_has_seen_enough_is_no_fault():
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
