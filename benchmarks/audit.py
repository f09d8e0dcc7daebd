"""The audit of many sleeping peers: nothing changed, so nothing may be done."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from benchmarks.figures import Budget, Figure, Row, Size, spread
from benchmarks.house import prepare

SIZES = ((1000, 20.0, None), (10_000, 200.0, None))


def audit(size: Size) -> list[Figure]:
    """Measure in a process of its own, whose every start of a process is counted."""
    found = []
    for peers, most_ms, gate in SIZES:
        figure = _figure(peers, size, Budget(most=most_ms, gate=gate))
        found.append(figure)
    return found


def _figure(peers: int, size: Size, budget: Budget) -> Figure:
    daemon = prepare(peers)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.audit_inside", str(peers), str(size.times(20))],
            env=daemon.environ,
            capture_output=True,
            check=False,
        )
    finally:
        daemon.clean_up()
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    limit, ours, started = msgspec.json.decode(
        done.stdout, type=tuple[list[float], list[float], list[str]]
    )
    if started:
        raise RuntimeError(f"the audit started processes: {started[:5]}")
    return Figure(
        row="audit",
        what=f"audit of {peers:,} peers, nothing changed",
        limit_what="a dict walk",
        unit="ms",
        limit=spread(limit, 1000),
        ours=spread(ours, 1000),
        budget=budget,
        note="no process was started (audit hook of the interpreter)",
    )


ROWS = (Row("audit", audit),)
