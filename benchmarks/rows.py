"""All rows of the suite, in the order of the results page."""

from __future__ import annotations

from benchmarks import (
    accepting,
    agents,
    audit,
    deaths,
    growth,
    landing,
    processes,
    resting,
    starting,
)
from benchmarks.figures import Row

ROWS: tuple[Row, ...] = (
    *accepting.ROWS,
    *landing.ROWS,
    *processes.ROWS,
    *deaths.ROWS,
    *audit.ROWS,
    *starting.ROWS,
    *growth.ROWS,
    *agents.ROWS,
    # Last: it waits for quiet, and nothing of another row may be left by then.
    *resting.ROWS,
)
BY_NAME = {row.name: row for row in ROWS}
GATED = ("accept", "mcp", "landing", "send", "hook")
"""What the regression gate looks at: quick rows whose limit is measured by turns with ours."""
