"""Where the fast lane's time goes, as a flame graph (SVG) by py-spy: ``python -m bench.flame [FILE]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.fast_lane import CONNECTIONS, PATH
from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.web import web_process

SECONDS = 8


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "var/lane.svg")
    target.parent.mkdir(parents=True, exist_ok=True)
    with bench_instance(bots=0):
        from apps.keys.services import create_key
        from bench.media import make_audio

        make_audio("benchaudio1")
        key = create_key(name="bench", limit_per_hour=1_000_000_000).key
        with web_process() as (port, pid):
            request = get(PATH, port=port, **{"X-API-Key": key})
            plan = Plan(port=port, requests=[request], connections=CONNECTIONS, seconds=SECONDS + 2)
            spy = [str(Path(sys.executable).with_name("py-spy")), "record", "-p", str(pid), "-d", str(SECONDS)]
            recorder = subprocess.Popen([*spy, "-r", "200", "-f", "flamegraph", "-o", str(target)])
            run_load(plan)
            recorder.wait(timeout=60)
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
