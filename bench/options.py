"""The command line that the benchmarks share: how often, how long, and bounds for every number."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def bench_parser(name: str, doc: str | None, *, rounds: int = 3) -> argparse.ArgumentParser:
    """With ``--rounds`` and ``--json``."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=doc)
    parser.add_argument(
        "--rounds", type=between(int, 1, 10), default=rounds, help=f"how often each is measured (default: {rounds})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def add_seconds(parser: argparse.ArgumentParser, *, default: float = 3.0) -> None:
    parser.add_argument(
        "--seconds", type=between(float, 0.5, 30), default=default, help=f"of each measurement (default: {default:g})"
    )


def between(kind: type[Number], low: float, high: float) -> Callable[[str], Number]:
    """For ``type`` of an argument."""

    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"from {low:g} to {high:g}")
        return value

    return read
