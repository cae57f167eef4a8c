"""The small disk of other tests goes whatever becomes of the process that mounted it."""

import subprocess
import sys
from pathlib import Path

from tests.small_disk import free_bytes, small_disk
from tests.waiting import wait_until

MOUNT_AND_WAIT = """
import sys
from pathlib import Path
from tests.small_disk import small_disk
with small_disk(Path(sys.argv[1])):
    print("mounted", flush=True)
    sys.stdin.read()
"""


def test_it_is_taken_away_at_the_end(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        assert disk.is_mount()
        assert free_bytes(disk) < free_bytes(tmp_path)
    assert not disk.is_mount()


def test_it_is_taken_away_when_the_process_is_killed(tmp_path):
    with small_disk(tmp_path / "probe"):  # skips where nothing can be mounted
        pass
    disk = tmp_path / "disk"
    command = [sys.executable, "-c", MOUNT_AND_WAIT, str(disk)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout.readline() == "mounted\n"
        assert disk.is_mount()
        process.kill()
    wait_until(lambda: not disk.is_mount())
