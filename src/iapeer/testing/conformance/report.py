"""What came of a run: one row per capability, as a table for people, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Verdict = Literal["pass", "fail", "n/a"]

_HEAD = ("result", "capability", "figure", "s")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One capability. `figure` is what was measured, or why the check does not apply."""

    name: str
    title: str
    verdict: Verdict
    figure: str = ""
    hint: str = ""
    """Where it failed: what to look at."""
    screen: str = ""
    """Where it failed: what the program showed just then."""
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite against one program."""

    runtime: str
    title: str
    program: str
    """What was run, an absolute path."""
    version: str
    """What it says of itself; empty when it says nothing that looks like a version."""
    tested: tuple[str, ...]
    """Versions its manifest was seen to work with."""
    doors: tuple[str, ...]
    has_model: bool
    seconds: float
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.verdict == "fail")

    @property
    def version_line(self) -> str:
        """The version and whether the manifest knows it."""
        if not self.version:
            return "unknown version"
        if self.version in self.tested:
            return f"{self.version} (tested)"
        return f"{self.version} (NOT among the tested: {', '.join(self.tested) or 'none'})"

    @property
    def summary(self) -> str:
        """The last line: how many of what, and in how long."""
        counts = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in _WORDS}
        told = [f"{count} {_WORDS[verdict]}" for verdict, count in counts.items() if count]
        return f"{', '.join(told)} in {self.seconds:.0f} s"


_WORDS: dict[Verdict, str] = {"pass": "passed", "fail": "FAILED", "n/a": "not applicable"}


def as_text(report: Report) -> str:
    """Return the table with a head line, and below it what is known of each failure."""
    lines = [f"{report.title}: {report.program}", f"version {report.version_line}"]
    lines += [f"doors: {', '.join(report.doors)}", "", *_aligned(_cells(report.rows)), ""]
    for row in report.failures:
        lines.append(f"{row.name}: {row.figure}")
        lines += [f"  hint: {row.hint}"] if row.hint else []
        lines += [f"  | {line}" for line in row.screen.splitlines()]
    return "\n".join([*lines, report.summary])


def as_markdown(report: Report) -> str:
    """Return a head line and a Markdown table, for a page of documentation."""
    head = ("capability", "result", "figure")
    rows = [(row.title, row.verdict, _escaped(row.figure)) for row in report.rows]
    lines = [" | ".join(cells) for cells in (head, ("---",) * len(head), *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{report.title} {report.version_line}: {report.summary}\n\n{table}"


def as_json(report: Report) -> str:
    """Return everything as one JSON object."""
    whole = {"passed": report.passed, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def _cells(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    found = [(row.verdict, row.title, row.figure, f"{row.seconds:.1f}") for row in rows]
    return [_HEAD, *found]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
