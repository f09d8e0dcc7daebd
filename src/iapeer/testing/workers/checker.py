"""What was promised about a worker's tasks, looked for in what the worker itself wrote down.

Pure: values in, violations out. A task is lost, shown again without its mark, out of its order,
beside another one in a session, or unfinished; a session begins before the last has ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

Kind = Literal[
    "lost", "unmarked", "order", "shared", "unfinished", "overlap", "state", "answers", "reruns"
]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One task as the worker's record shows it; `place` is its place in the order of time.

    `finished`: the turn that read it came to its end. `number` is None where the text holds no
    task of ours.
    """

    place: int
    number: int | None
    session: str
    dup: bool
    finished: bool


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of a task at the end."""

    number: int
    state: str
    dup: bool


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A session's life as the ledger tells it; seconds since the epoch."""

    id: str
    began: float
    ended: float | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known at the end of a run.

    `results` counts the worker's own messages by the task they answer; `answering` are the tasks
    that ask for one. `killed` are the sessions whose program was killed.
    """

    tasks: int
    shown: Sequence[Shown]
    fates: Sequence[Fate]
    spans: Sequence[Span]
    results: Mapping[int, int]
    answering: frozenset[int]
    killed: frozenset[str] = frozenset()


class Violation(msgspec.Struct, frozen=True):
    """One broken promise and what speaks for it."""

    kind: Kind
    subject: str
    detail: str


def check(found: Found) -> list[Violation]:
    """Return every broken promise."""
    by_task: dict[int, list[Shown]] = defaultdict(list)
    for shown in found.shown:
        if shown.number is not None:
            by_task[shown.number].append(shown)
    return [
        *_tasks(found, by_task),
        *_order(found.shown),
        *_sessions(found),
        *_fates(found, by_task),
    ]


def _tasks(found: Found, by_task: Mapping[int, Sequence[Shown]]) -> Iterator[Violation]:
    failed = {fate.number for fate in found.fates if fate.state == "failed"}
    for number in range(found.tasks):
        showings, subject = by_task.get(number, ()), f"task {number}"
        if not showings:
            yield Violation("lost", subject, "the worker never saw it")
            continue
        for again in showings[1:]:
            if not again.dup:
                yield Violation("unmarked", subject, f"again in {again.session}, without a mark")
        for before in showings[:-1]:
            if before.finished and before.session not in found.killed:
                yield Violation("reruns", subject, f"was finished in {before.session}")
        if not showings[-1].finished and number not in failed:
            yield Violation("unfinished", subject, f"{showings[-1].session} did not finish it")
        results, wanted = found.results.get(number, 0), number in found.answering
        if results > len(showings) or (wanted and not results and number not in failed):
            yield Violation("answers", subject, f"{results} results of {len(showings)} showings")


def _order(shown: Sequence[Shown]) -> Iterator[Violation]:
    ordered = sorted(shown, key=lambda one: one.place)
    numbers = [one.number for one in ordered if one.number is not None]
    for before, after in pairwise(numbers):
        if after < before:
            yield Violation("order", f"task {after}", f"came after task {before}")


def _sessions(found: Found) -> Iterator[Violation]:
    for session, count in Counter(one.session for one in found.shown).items():
        if count > 1:
            yield Violation("shared", session, f"was given {count} texts")
    spans = sorted(found.spans, key=lambda span: span.began)
    for before, after in pairwise(spans):
        if before.ended is None or before.ended > after.began:
            yield Violation("overlap", after.id, f"began before {before.id} had ended")
    if spans and spans[-1].ended is None:
        yield Violation("overlap", spans[-1].id, "never ended")


def _fates(found: Found, by_task: Mapping[int, Sequence[Shown]]) -> Iterator[Violation]:
    fates = {fate.number: fate for fate in found.fates}
    for number in range(found.tasks):
        fate, showings = fates.get(number), by_task.get(number, ())
        if fate is None:
            yield Violation("state", f"task {number}", "is not in the ledger")
        elif fate.state == "failed" and len(showings) < 2:
            yield Violation("state", f"task {number}", "a dead letter that was not tried twice")
        elif fate.state not in ("seen", "failed"):
            yield Violation("state", f"task {number}", f"is {fate.state}")
