"""Figures of a run: printed to the terminal, and kept for docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Figure:
    """One thing measured several times. ``floor`` or ``ceiling``: what its median should reach or stay under.
    The verdict says when it did not in every round."""

    name: str
    values: list[float]
    floor: float | None = None
    ceiling: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.floor is None and self.ceiling is None:
            return ""
        wanted = f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"
        if not self._is_within(self.median):
            return f"{wanted}: MISSED"
        missed = sum(not self._is_within(value) for value in self.values)
        return f"{wanted}: reached" + (f", missed in {missed} of {len(self.values)} rounds" if missed else "")

    def _is_within(self, value: float) -> bool:
        return (self.floor is None or value >= self.floor) and (self.ceiling is None or value <= self.ceiling)

    @property
    def shown(self) -> str:
        """min / median / max; one number when there is only one."""
        if len(self.values) == 1:
            return _short(self.values[0])
        return " / ".join(_short(value) for value in (min(self.values), self.median, max(self.values)))

    def row(self) -> str:
        return f"{self.name:58} {self.shown:>28}  {self.verdict}".rstrip()


@dataclass
class Report:
    """What one program measured, as min / median / max."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        sys.stderr.write(f"{figure.row()}\n")

    def note(self, text: str) -> None:
        self.notes.append(text)
        sys.stderr.write(f"{text}\n")

    def show(self, *, as_json: bool) -> None:
        """To standard output; progress went to standard error."""
        if as_json:
            sys.stdout.write(json.dumps(asdict(self)) + "\n")


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
