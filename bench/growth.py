"""The same figures with few and with very many assets and keys: ``python -m bench.growth [--assets N] [--json]``.

MongoDB gets generated assets, keys, jobs and metadata (written in bulk; nothing of them is on disk). A second MongoDB
has as few as in the beginning, and everything is measured round by round in turn: a machine's speed changes within
minutes. Answers per second of the lane and of Django, and their processor time; and for each page of the admin, each
list of the API, keys and metadata that nobody has in memory, and what the workers ask (``growth_asks``), how many index
keys and documents MongoDB looks at (by its profiler: the same on any machine) and how much processor time it takes in
MongoDB and here. With ``--keep FOLDER`` the database stays there, and a run that was stopped goes on with what is left
to do.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from mongoengine import get_db

from bench.copies import smaller_copy
from bench.fast_lane import costed
from bench.filling import AUDIO, MANY_KEYS, beyond, fill, video_id
from bench.growth_asks import Found, ask_in_turn, asker, mongod_pid, tell
from bench.instance import bench_instance
from bench.load import Plan, get, run_load
from bench.report import Figure, Report
from bench.web import wait_until_idle, web_process

FEW = 10_000
FEW_KEYS = 1_000
MAX_ASSETS = 2_000_000
CALM_S = 30.0
CONNECTIONS = 32
VIDEOS = 200
ASK_ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--assets", type=int, default=1_000_000, help="the larger number (default: 1,000,000)")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder for the database, which stays")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (FEW < options.assets <= MAX_ASSETS and 0.5 <= options.seconds <= 30 and 1 <= options.rounds <= 10):
        parser.error(f"{FEW} to {MAX_ASSETS} assets, 0.5 to 30 seconds, 1 to 10 rounds")
    report = Report("growth")
    with bench_instance(bots=0, keep=options.keep):
        measure(report, assets=options.assets, seconds=options.seconds, rounds=options.rounds)
    report.show(as_json=options.json)


def measure(report: Report, *, assets: int, seconds: float, rounds: int) -> None:
    from apps.keys.services import create_key
    from bench.media import make_audio

    _once("the audio", lambda: make_audio(AUDIO))
    key = create_key(name="bench", limit_per_hour=1_000_000_000, scopes=("info", "media", "search", "admin")).key
    filled_s = fill(assets, MANY_KEYS, once=_once)
    report.note(f"{assets:,} assets; {MANY_KEYS:,} keys, jobs and videos' metadata: written in {filled_s:.0f} s; "
                f"few are {FEW:,} assets, {FEW_KEYS:,} of the others")  # fmt: skip
    with smaller_copy(beyond(FEW, FEW_KEYS)) as few_address:
        _calm_down()
        rates = _once("rates of both", lambda: _rates(key, few_address, seconds, rounds))
        found = _once("asked in turn", lambda: _asked(key, few_address, assets))
    _tell_rates(report, rates, assets=assets)
    tell(report, found, assets=assets)


def _tell_rates(report: Report, rates: dict[str, Any], *, assets: int) -> None:
    for name, before in rates["few"].items():
        after = rates["many"][name]
        for size, values in ((FEW, before), (assets, after)):
            report.add(Figure(f"{name}, answers/s: {size:,}", values["per_s"]))
            report.add(Figure(f"{name}, processor time, us for an answer: {size:,}", values["cpu_us"]))
        per_s, cpu_us = (_by_round(before[unit], after[unit]) for unit in ("per_s", "cpu_us"))
        report.add(Figure(f"{name}, answers/s: many to few", per_s, floor=0.9))
        report.add(Figure(f"{name}, processor time: many to few", cpu_us, ceiling=1.1))


def _by_round(few: list[float], many: list[float]) -> list[float]:
    return [after / before for before, after in zip(few, many, strict=True)]


def _once(name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; what it gave, where an earlier run over the same folder has done it."""
    collection = get_db()["bench_growth"]
    done = collection.find_one({"_id": name})
    if done is None:
        done = {"_id": name, "value": work()}
        collection.insert_one(done)
    return done["value"]


def _asked(key: str, few_address: str, assets: int) -> Found:
    few_redis = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/1"  # what is kept of the one is not for the other
    with (
        asker(key=key, assets=FEW, keys=FEW_KEYS, MONGO_URI=few_address, REDIS_URL=few_redis) as few,
        asker(key=key, assets=assets, keys=MANY_KEYS) as many,
    ):
        return ask_in_turn(few, many, rounds=ASK_ROUNDS)


def _rates(key: str, few_address: str, seconds: float, rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Both sizes in turn, the other one first in each next round."""
    metadata = f"lane, metadata of {VIDEOS} videos"
    found: dict[str, dict[str, dict[str, list[float]]]] = {"few": {}, "many": {}}
    addresses = {"few": few_address, "many": os.environ["MONGO_URI"]}
    keys = {"few": FEW_KEYS, "many": MANY_KEYS}
    for lane, names in (("on", ("lane, a known file", metadata)), ("off", ("Django, a known file",))):
        with ExitStack() as stack:
            processes = {
                size: stack.enter_context(web_process(FAST_LANE=lane, MONGO_URI=address))
                for size, address in addresses.items()
            }
            for name in names:
                plans = {
                    size: _plan(key, port, seconds, keys[size], one_file=name != metadata)
                    for size, (port, _) in processes.items()
                }
                for size, plan in plans.items():
                    run_load(plan)
                    found[size][name] = {"per_s": [], "cpu_us": []}
                for turn in range(rounds):
                    for size in sorted(plans, reverse=turn % 2 == 1):
                        wait_until_idle(pid for _, pid in processes.values())
                        outcome, cpu_us = costed(plans[size], processes[size][1])
                        found[size][name]["per_s"].append(outcome.per_s)
                        found[size][name]["cpu_us"].append(cpu_us)
    return found


def _plan(key: str, port: int, seconds: float, keys: int, *, one_file: bool) -> Plan:
    chance = Random(3)  # noqa: S311 - test data
    paths = [f"/api/v1/info?url={video_id(chance.randrange(keys))}" for _ in range(VIDEOS)]
    if one_file:
        paths = [f"/api/v1/audio?url={AUDIO}"]
    requests = [get(path, port=port, **{"X-API-Key": key}) for path in paths]
    return Plan(port=port, requests=requests, connections=CONNECTIONS, seconds=seconds)


def _calm_down() -> None:
    """Have MongoDB write to the disk what it holds, and wait until it hardly works: filling it must not slow what is
    measured next."""
    get_db().client.admin.command("fsync")
    wait_until_idle([mongod_pid()], timeout_s=CALM_S)


if __name__ == "__main__":
    main()
