"""The regression gate: quick rows, compared by ratio with generous margins, in under a minute.

A row that is over its margin is measured up to twice more, longer: a disturbed machine recovers, a
slow program does not.
"""

from __future__ import annotations

import sys

from benchmarks import report
from benchmarks.figures import Figure, Size
from benchmarks.rows import BY_NAME, GATED

_FIRST, _AGAIN = Size(0.25), (Size(0.6), Size(0.6))


def run() -> int:
    """Measure, print, compare; return the exit status."""
    sys.stdout.write(report.text_head())
    slow = []
    for name in GATED:
        figures = _measure(name, _FIRST)
        for size in _AGAIN:
            if not any(map(is_slow, figures)):
                break
            sys.stdout.write("  once more:\n")
            figures = _measure(name, size)
        slow += [figure for figure in figures if is_slow(figure)]
    for figure in slow:
        sys.stdout.write(
            f"SLOW: {figure.what}: {figure.ratio:.1f} times {figure.limit_what}, "
            f"the gate allows {figure.budget.gate:g}\n"
        )
    return 1 if slow else 0


def is_slow(figure: Figure) -> bool:
    """Whether a figure is beyond the gate's margin."""
    gate, ratio = figure.budget.gate, figure.ratio
    return gate is not None and ratio is not None and ratio > gate


def _measure(name: str, size: Size) -> list[Figure]:
    figures = BY_NAME[name].measure(size)
    sys.stdout.write(report.text_lines(figures))
    sys.stdout.flush()
    return figures
