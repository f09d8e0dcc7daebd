"""What the outside says about messages: lines of the delivery log and the API's traces; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

_PAIR = re.compile(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|\S*)')


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the delivery log: a message whose sender has its answer. `ms` is that wait."""

    id: str
    caller: str
    to: str
    state: str
    ms: int = 0
    woke: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a trace; `at` is seconds since the epoch. Other keys are left out."""

    at: float
    state: str
    reason: str = ""
    door: str = ""
    evidence: str = ""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one message, without its body."""

    id: str
    sender: str
    recipient: str
    state: str
    steps: tuple[Step, ...]

    @property
    def is_settled(self) -> bool:
        """Tell whether the message has gone as far as it can."""
        return self.state in {"seen", "failed", "expired"}


class Row(msgspec.Struct, frozen=True):
    """One line of the table; cells that would repeat the line above are empty."""

    id: str
    way: str
    ms: str
    state: str
    how: str


def read_letters(lines: Iterable[str]) -> list[Letter]:
    """Return the accepted messages of a delivery log, in its order."""
    letters = []
    for line in lines:
        pairs = dict(_PAIR.findall(line))
        if pairs.get("ev") == "delivery" and "id" in pairs:
            letters.append(msgspec.convert(pairs, Letter, strict=False))
    return letters


def rows(traces: Sequence[Trace]) -> list[Row]:
    """Return the table of all steps; times are ms since the first message was accepted."""
    start = min((trace.steps[0].at for trace in traces if trace.steps), default=0.0)
    table = []
    for trace in traces:
        names = (trace.id, f"{_name(trace.sender)} → {_name(trace.recipient)}")
        door = ""
        for step in trace.steps:
            door = step.door or door
            table.append(
                Row(*names, f"{(step.at - start) * 1000:.0f}", step.state, _how(step, door))
            )
            names = ("", "")
    return table


def _name(address: str) -> str:
    return address.partition("-")[2] or address


def _how(step: Step, door: str) -> str:
    """Return the facts of a step in a reader's words."""
    if step.reason:
        return "its session is starting" if step.reason == "waking" else step.reason
    if step.evidence:
        return f"proof: {step.evidence}"
    told = {
        "accepted": "safe on disk",
        "in_flight": f"through the {door} door",
        "landed": "the runtime has it",
    }
    return told.get(step.state, "")
