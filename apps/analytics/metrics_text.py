"""The text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A metric and its samples. ``kind``: counter, gauge or histogram. A sample is (suffix, labels, value)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for suffix, labels, value in self.samples:
            shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield (
                f"{self.name}{suffix}{{{shown}}} {_number(value)}" if shown else f"{self.name}{suffix} {_number(value)}"
            )


def gauge(name: str, text: str, value: float | Iterable[tuple[Labels, float]]) -> Family:
    """A value that goes up and down: one, or one for each set of labels."""
    return Family(name=name, kind="gauge", help=text, samples=_samples(value))


def counter(name: str, text: str, value: float | Iterable[tuple[Labels, float]]) -> Family:
    """A value that only grows (until Redis loses it); ``name`` ends in _total."""
    return Family(name=name, kind="counter", help=text, samples=_samples(value))


def render(families: Iterable[Family]) -> str:
    return "".join(f"{line}\n" for family in families for line in family.lines())


def _samples(value: float | Iterable[tuple[Labels, float]]) -> list[tuple[str, Labels, float]]:
    if isinstance(value, int | float):
        return [("", {}, value)]
    return [("", labels, number) for labels, number in value]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
