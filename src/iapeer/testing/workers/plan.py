"""What one run is asked to do: tasks and kills, both pure functions of the seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

import msgspec

Victim = Literal["daemon", "worker"]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One run; `seconds` bounds it, and a run that is not done by then has failed."""

    tasks: int = 100
    kills: int = 20
    worker_kills: int = 4
    seed: int = 1
    seconds: float = 540.0


SETTINGS: dict[str, float | int] = {
    "ephemeral_quiet_s": 0.3,
    "ephemeral_unarmed_idle_s": 0.9,
    "boot_backoff_s": 0.05,
    "boot_backoff_max_s": 0.3,
    "boots_before_broken": 1000,
    "evidence_s": 1.0,
    "audit_s": 5.0,
    "wait_live_s": 0.0,
    "wait_waking_s": 0.0,
    "composer_poll_ms": 40,
    "busy_poll_ms": 40,
}
"""The daemon's `iapeer.toml`: the defaults suit people, these suit a run of minutes."""

CYCLE_S = 2.5
"""About the time from one task's first sight to the next one's: kills fall anywhere in it."""
AWAY_S = 0.8
"""Longest time without a daemon after a kill."""

_WAYS = (
    "SEND op {result}",
    "SLOW 0.7\nSEND op {result}",
    "SEND op {result}\nSLOW 0.7",
    "NOTHING",
)
"""What tasks do: answer at once, late or in mid-turn, or finish without a word."""
_TASK = re.compile(r"\nTask (\d+)\.\Z")
_RESULT = re.compile(r"result-(\d+)")


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: `delay_s` after the worker has seen `after` tasks; then none for `away_s`."""

    after: int
    delay_s: float
    away_s: float
    victim: Victim


def make_plan(options: WorkerOptions) -> tuple[Kill, ...]:
    """Return the kills in their order, spread over all tasks."""
    random = Random(options.seed)  # noqa: S311 - a plan that can be repeated
    victims: list[Victim] = ["daemon"] * options.kills
    victims += ["worker"] * options.worker_kills
    random.shuffle(victims)
    moments = sorted((random.randrange(options.tasks), random.uniform(0, CYCLE_S)) for _ in victims)
    return tuple(
        Kill(after, delay_s, random.uniform(0, AWAY_S), victim)
        for (after, delay_s), victim in zip(moments, victims, strict=True)
    )


def way_of(seed: int, task: int) -> str:
    """Return what a task tells the worker to do."""
    return Random(f"{seed}-{task}").choice(_WAYS)  # noqa: S311 - variety that can be repeated


def body_of(seed: int, task: int) -> str:
    """Return the text of a task; it holds its number."""
    return f"{way_of(seed, task).format(result=f'result-{task}')}\nTask {task}."


def answers(seed: int, task: int) -> bool:
    """Whether a task ends with a message of the worker."""
    return "{result}" in way_of(seed, task)


def task_in(body: str) -> int | None:
    """Return the number of the task in a text, None if there is none."""
    found = _TASK.search(body)
    return int(found[1]) if found else None


def result_in(body: str) -> int | None:
    """Return the number of the task that a message answers, None if it answers none."""
    found = _RESULT.fullmatch(body)
    return int(found[1]) if found else None
