"""The results as tables for `docs/rivals.md` and for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Spread
from benchmarks.machine import Machine
from benchmarks.rivals.bun_send import Start
from benchmarks.rivals.readings import Burst, Column

PAGE = Path(__file__).parents[2] / "docs" / "rivals.md"


@dataclass(frozen=True)
class Run:
    """How long a run took, and the one-minute load average at the end of each of its parts."""

    took_s: float
    loads: Sequence[float]


def page_part(
    machine: Machine, columns: Sequence[Column], starts: Sequence[Start], run: Run
) -> str:
    """Return the generated part of the page."""
    loads = ", ".join(f"{load:.1f}" for load in run.loads)
    ran = [column for column in columns if column.readings]
    made = f"Made by `make bench-rivals` in {run.took_s:.0f} s on this machine, {machine.words()}"
    parts = [
        f"{made}, and at the end of each part {loads}, this run's own among it.",
        "### What was compared",
        _table(
            ("system", "version", "sent by", "recipient", "when the call has returned"),
            [
                (column.name, column.version, column.entrance, column.recipient, column.promise)
                for column in columns
            ],
        ),
        "### One message of 1 KB",
        "Median / 99th percentile, ms. Each send waits until the last message is there.",
        one_table(ran),
        "### Many messages",
        "One number for each round that had the measurement; rates are medians.",
        many_table(ran),
        "### Starting a program that sends one message",
        "The whole process, by turns, to the same daemon; the recipient is away.",
        starts_table(starts),
    ]
    remarks = list(_remarks(columns))
    if remarks:
        parts += ["### Remarks of this run", "\n".join(remarks)]
    return "\n\n".join(parts)


def one_table(columns: Sequence[Column]) -> str:
    """Return what one message, a start and the memory cost."""
    head = (
        "system",
        "the call returns",
        "the recipient has it",
        "start to the first answer",
        "memory after the round, USS / PSS",
    )
    return _table(
        head,
        [
            (
                column.name,
                _both(column.sent),
                _both(column.seen),
                "-" if column.start is None else f"{_number(column.start.median)} ms",
                _memory(column),
            )
            for column in columns
        ],
    )


def many_table(columns: Sequence[Column]) -> str:
    """Return what became of the lone sender's messages and of the bursts."""
    head = (
        "system",
        "senders x messages",
        "taken",
        "refused",
        "taken /s",
        "arrived",
        "came again",
        "arrived /s",
    )
    lines = [
        _burst_line(column, bursts)
        for column in columns
        for bursts in (column.single, column.bursts)
        if bursts
    ]
    return _table(head, lines)


def starts_table(starts: Sequence[Start]) -> str:
    """Return what whole processes cost."""
    return _table(
        ("program", "median / p99, ms", "size of its file"),
        [
            (
                start.what,
                f"not run: {start.reason}" if start.spread is None else _both(start.spread),
                "-" if start.mib is None else f"{start.mib:.0f} MiB",
            )
            for start in starts
        ],
    )


def _burst_line(column: Column, bursts: Sequence[Burst]) -> tuple[str, ...]:
    tries = _each(bursts, lambda burst: burst.sent + burst.refused)
    arrived = ("-", "-", "-")
    if column.delivers:
        arrived = (
            _each(bursts, lambda burst: burst.arrived),
            _each(bursts, lambda burst: burst.doubled),
            _rate(burst.arrived_per_s for burst in bursts),
        )
    return (
        column.name,
        f"{bursts[0].senders} senders, {tries}" if bursts[0].senders > 1 else f"1 sender, {tries}",
        _each(bursts, lambda burst: burst.sent) if column.told else "not told",
        _each(bursts, lambda burst: burst.refused) if column.told else "not told",
        _rate(burst.sent_per_s for burst in bursts) if column.told else "-",
        *arrived,
    )


def _remarks(columns: Iterable[Column]) -> Iterable[str]:
    """Tell what was not run, what senders were told and what a system complained about."""
    for column in columns:
        if column.reason:
            how = "after the rounds above" if column.readings else "not run"
            yield f"* {column.name} {column.version}, {how}: {_plain(column.reason)}."
        told = [burst.error for burst in (*column.single, *column.bursts) if burst.error]
        if told:
            yield f"* {column.name} {column.version} told a sender: `{_plain(told[0])}`"
        for note in dict.fromkeys(one.note for one in column.readings if one.note):
            yield f"* {column.name} {column.version} wrote into its log: {_plain(note)}."


def _plain(text: str) -> str:
    """Return a foreign text so that it can't break out of its place on the page."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/").replace("<", "(")[:300]


def _each(bursts: Sequence[Burst], what: Callable[[Burst], int]) -> str:
    """Return one number for each round, or one when all rounds agree."""
    numbers = [what(burst) for burst in bursts]
    if len(set(numbers)) == 1:
        return f"{numbers[0]:,}"
    return "; ".join(f"{number:,}" for number in numbers)


def _rate(rates: Iterable[float]) -> str:
    found = statistics.median(rates)
    return f"{found:,.0f}" if found >= 10 else f"{found:.1f}"


def _both(found: Spread | None) -> str:
    return "-" if found is None else f"{_number(found.median)} / {_number(found.p99)}"


def _memory(column: Column) -> str:
    uss = [one.uss_mib for one in column.readings if one.uss_mib is not None]
    pss = [one.pss_mib for one in column.readings if one.pss_mib is not None]
    if not uss or not pss:
        return "-"
    return f"{statistics.median(uss):.0f} / {statistics.median(pss):.0f} MiB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
