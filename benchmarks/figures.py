"""What a benchmark says: samples made into a spread, a budget, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Samples of one kind: median, 10th, 90th and 99th percentile, and how many there were."""

    median: float
    low: float
    high: float
    p99: float
    count: int


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure must keep; every part that is given counts.

    `ratio`: most of ours / limit; `least_ratio`: least of it; `most` and `most_p99`: most of ours,
    in the row's unit. `gate`: the ratio at which the regression gate fails, None outside of it.
    """

    ratio: float | None = None
    least_ratio: float | None = None
    most: float | None = None
    most_p99: float | None = None
    gate: float | None = None

    def words(self, unit: str) -> str:
        """Return the budget as a table shows it."""
        parts = []
        if self.ratio is not None:
            parts.append(f"<= {self.ratio:g}x")
        if self.least_ratio is not None:
            parts.append(f">= {self.least_ratio:g}x")
        if self.most is not None:
            parts.append(f"<= {self.most:g} {unit}")
        if self.most_p99 is not None:
            parts.append(f"p99 <= {self.most_p99:g} {unit}")
        return ", ".join(parts) or "-"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the results. Without `ours` it was not measured, and `note` says why."""

    row: str
    what: str
    unit: str
    budget: Budget
    limit_what: str = "-"
    limit: Spread | None = None
    ours: Spread | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours / limit, of the medians."""
        if self.limit is None or self.ours is None or not self.limit.median:
            return None
        return self.ours.median / self.limit.median

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None when nothing was measured or nothing is asked."""
        if self.ours is None or self.budget.words("") == "-":
            return None
        ratio, wanted = self.ratio, self.budget
        checks = [
            wanted.ratio is None or (ratio is not None and ratio <= wanted.ratio),
            wanted.least_ratio is None or (ratio is not None and ratio >= wanted.least_ratio),
            wanted.most is None or self.ours.median <= wanted.most,
            wanted.most_p99 is None or self.ours.p99 <= wanted.most_p99,
        ]
        return all(checks)


@dataclass(frozen=True)
class Size:
    """How much is measured: 1 is the full run; what is printed is comparable only between those."""

    factor: float = 1.0

    def times(self, full: int, least: int = 5) -> int:
        """Return how often to do what a full run does `full` times."""
        return max(least, round(full * self.factor))


@dataclass(frozen=True)
class Row:
    """One row of the suite: a name for the command line, and what measures it."""

    name: str
    measure: Callable[[Size], list[Figure]]


def spread(samples: Sequence[float], scale: float = 1.0) -> Spread:
    """Return the spread of samples, each multiplied by `scale`. Raises ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(sample * scale for sample in samples)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Spread(statistics.median(ordered), at(0.1), at(0.9), at(0.99), len(ordered))


def by_turns(
    limit: Callable[[], float], ours: Callable[[], float], times: int, warm: int = 3
) -> tuple[list[float], list[float]]:
    """Call both alternately, who is first changing too; return their samples, limit's first.

    What disturbs the machine then disturbs both; the first `warm` rounds are not counted.
    """
    sides: tuple[list[float], list[float]] = ([], [])
    calls = (limit, ours)
    for turn in range(times + warm):
        for side in (0, 1) if turn % 2 else (1, 0):
            sample = calls[side]()
            if turn >= warm:
                sides[side].append(sample)
    return sides
