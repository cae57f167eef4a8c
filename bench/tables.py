"""The tables of docs/benchmarks.md, one for each program. Those of programs that did not run stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report import Report

BEGIN, END = "<!-- figures of make bench: begin -->", "<!-- figures of make bench: end -->"
HEADING = "### "


def put_table(doc: Path, report: Report, *, titles: Sequence[str], title: str, about: str, when: str) -> None:
    """Put the figures of ``report`` under ``title``, instead of the table there; ``titles`` tells the order.

    ``about``: the machine, ``when``: the day; both above this one, as others may be of others.
    """
    head, _, rest = doc.read_text(encoding="utf-8").partition(BEGIN)
    between, _, tail = rest.partition(END)
    _, *sections = f"\n{between}".split(f"\n{HEADING}")
    tables = {section.partition("\n")[0]: section.strip() for section in sections}
    tables[title] = _table(report, title=title, about=f"{when} {about}")
    ordered = [HEADING + tables[name] for name in titles if name in tables]
    doc.write_text(head + "\n\n".join([BEGIN, *ordered]) + f"\n{END}" + tail, encoding="utf-8")


def _table(report: Report, *, title: str, about: str) -> str:
    lines = [title, "", about, "", "| | min / median / max | wanted |", "|---|---|---|"]
    lines += [f"| {figure.name} | {figure.shown} | {figure.verdict} |" for figure in report.figures]
    lines += ["", "\\\n".join(report.notes)] if report.notes else []
    return "\n".join(lines)
