import os
import subprocess
import sys

import pytest

from apps.core.owners import is_owner_dead, make_owner

ODDLY_NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0); print('up', flush=True); input()"


def test_a_process_that_runs_is_not_dead():
    assert not is_owner_dead(make_owner())


@pytest.mark.skipif(sys.platform != "linux", reason="names of processes are set by prctl(2)")
def test_one_whose_number_went_to_a_process_with_a_name_of_odd_bytes_is_dead():
    with subprocess.Popen(
        [sys.executable, "-c", ODDLY_NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        machine = make_owner().rsplit(f":{os.getpid()}:", 1)[0]
        assert is_owner_dead(f"{machine}:{process.pid}:1")
        process.communicate(b"\n")
