"""Results as text for a terminal, and as the generated part of `docs/performance.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Spread
from benchmarks.machine import Machine

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- begin measured -->", "<!-- end measured -->"
_LINE = "{:60.60} {:>24} {:>24} {:>8} {:>22} {}\n"


def text_head() -> str:
    """Return the head of the terminal's table."""
    return _LINE.format("what", "limit", "ours", "ratio", "budget", "met")


def text_lines(figures: Iterable[Figure]) -> str:
    """Return figures as lines of the terminal's table."""
    return "".join(
        _LINE.format(
            figure.what,
            _short(figure.limit, figure.unit),
            _short(figure.ours, figure.unit) if figure.ours else "not measured",
            _ratio(figure),
            figure.budget.words(figure.unit),
            _met(figure),
        )
        for figure in figures
    )


def page_part(machine: Machine, figures: Sequence[Figure], took_s: float) -> str:
    """Return the generated part of the page."""
    lines = [
        f"Made by `make bench` in {took_s:.0f} s on this machine, {machine.words()}.",
        "",
        "Median (10th to 90th percentile); p99 where a budget asks for it.",
        "",
        "| what | limit beside it | limit | ours | ratio | budget | met |",
        "|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for figure in figures:
        mark = ""
        if figure.note:
            notes.append(f"{len(notes) + 1}. {figure.what}: {figure.note}.")
            mark = f" ({len(notes)})"
        cells = (
            f"{figure.what}{mark}",
            figure.limit_what,
            _full(figure.limit, figure.unit),
            _full(figure.ours, figure.unit, p99=figure.budget.most_p99 is not None),
            _ratio(figure),
            figure.budget.words(figure.unit),
            _met(figure),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *notes])


def write_page(part: str, page: Path = PAGE) -> None:
    """Put the generated part between its markers. Raises ValueError where they are not."""
    text = page.read_text(encoding="utf-8")
    found = re.search(f"{BEGIN}\n.*{END}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page} has no {BEGIN} ... {END}")
    fresh = f"{text[: found.start()]}{BEGIN}\n\n{part}\n\n{text[found.end() - len(END) :]}"
    page.write_text(fresh, encoding="utf-8")


def _ratio(figure: Figure) -> str:
    return "-" if figure.ratio is None else f"{figure.ratio:.2f}x"


def _met(figure: Figure) -> str:
    return {None: "-", True: "met", False: "MISSED"}[figure.met]


def _short(found: Spread | None, unit: str) -> str:
    return "-" if found is None else f"{_number(found.median)} {unit}"


def _full(found: Spread | None, unit: str, *, p99: bool = False) -> str:
    if found is None:
        return "-"
    shown = f"{_number(found.median)} {unit}"
    if found.count > 1 and found.low != found.high:
        shown += f" ({_number(found.low)} to {_number(found.high)})"
    return f"{shown}, p99 {_number(found.p99)}" if p99 else shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
