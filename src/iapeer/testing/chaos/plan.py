"""What is done to the system, in which order: a pure function of the seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import iapeer

KILLS = {"daemon_kill": 34, "fault": 30, "agent_kill": 22, "server_kill": 14}
"""Deeds that end a process without warning, with their weights."""
DISTURBANCES = {
    "server_stop": 8,
    "reader_drop": 5,
    "daemon_term": 3,
    "disk_full": 2,
    "fsync_error": 2,
}
"""Deeds that do not."""
DISTURBANCES_PER_KILL = 0.25
_OTHERS = ("rename.", "leave.", "stop.", "new.", "renew.")
_POINT = re.compile(r"""(?<![.\w])fault\("([a-z_]+\.[a-z_]+)"\)""")


@dataclass(frozen=True)
class Step:
    """One deed of the plan; `fault` names the point of a `fault`, `pick` chooses among targets."""

    kind: str
    pick: float
    fault: str = ""

    @property
    def is_kill(self) -> bool:
        """Whether a process dies by it."""
        return self.kind in KILLS


def fault_points(source: Path | None = None) -> tuple[str, ...]:
    """Return every fault point of the daemon's way of a message, as the source names them.

    Those of a rename, and of a session that is ended on purpose, are left out: they are no
    delivery, and have kill tests of their own.
    """
    folder = source or Path(iapeer.__file__).parent
    found = {
        name
        for path in sorted(folder.rglob("*.py"))
        for name in _POINT.findall(path.read_text(encoding="utf-8"))
    }
    return tuple(sorted(name for name in found if not name.startswith(_OTHERS)))


def make_plan(seed: int, kills: int, points: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps for a seed: `kills` kills, and disturbances between them.

    Fault points come round in turn, so that each is tried as often as the others; every kind of
    disturbance is there once before chance decides.
    """
    random = Random(seed)  # noqa: S311 - a plan that can be repeated
    steps = [_step(random, kind) for kind in _draw(random, KILLS, kills)]
    others = max(len(DISTURBANCES), round(kills * DISTURBANCES_PER_KILL))
    chosen = [*DISTURBANCES, *_draw(random, DISTURBANCES, others - len(DISTURBANCES))]
    steps += [_step(random, kind) for kind in chosen]
    random.shuffle(steps)
    turn = list(points)
    random.shuffle(turn)
    planned, nth = [], 0
    for step in steps:
        point = ""
        if step.kind == "fault":
            point, nth = turn[nth % len(turn)], nth + 1
        planned.append(Step(step.kind, step.pick, point))
    return tuple(planned)


def _draw(random: Random, weights: dict[str, int], count: int) -> list[str]:
    return random.choices(list(weights), list(weights.values()), k=count)


def _step(random: Random, kind: str) -> Step:
    return Step(kind, random.random())
