"""A real agent CLI: what we add between send and model request; measured by `bench_agents.py`.

Its figures are differences to the same program fed by hand a moment later, without our hooks.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Budget, Figure, Row, Size, Spread
from iapeer.testing.agents import locate
from iapeer.testing.agents.errors import AgentError
from iapeer.testing.agents.install import CACHE

AGENTS = ("claude", "codex")
_SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_agents.py"
_TIMEOUT_S = 180


def agents(size: Size) -> list[Figure]:
    """Run the script and take over its table; without the agents the row is not measured."""
    try:
        for agent in AGENTS:
            locate(agent, Path(CACHE).resolve())
    except AgentError as error:
        return [_missing(f"not measured: {error}; `make test-real` installs them")]
    runs = [str(size.times(3, least=1)), str(size.times(9, least=1))]
    try:
        done = subprocess.run(
            [sys.executable, str(_SCRIPT), *runs],
            cwd=_SCRIPT.parents[1],
            capture_output=True,
            encoding="utf-8",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [_missing(f"not measured: not done within {_TIMEOUT_S} s")]
    figures = [_figure(line.split()) for line in done.stdout.splitlines()[1:]]
    return figures or [_missing(f"not measured: {done.stderr.strip().splitlines()[-1:]}")]


def _figure(words: list[str]) -> Figure:
    agent, kind, runs, ours, alone, beyond, most, _ratio = words
    count = int(runs)
    return Figure(
        row="agents",
        what=f"send -> model request of {agent} ({kind}) beyond its own time",
        limit_what=f"by hand {alone} s, with us {ours} s",
        unit="s",
        ours=Spread(*(float(beyond),) * 4, count),
        budget=Budget(most=float(most)),
        note=f"median of {count} pairs",
    )


def _missing(why: str) -> Figure:
    return Figure(
        row="agents",
        what="send -> model request of a real CLI beyond its own time",
        unit="s",
        budget=Budget(most=0.1),
        note=why,
    )


ROWS = (Row("agents", agents),)
