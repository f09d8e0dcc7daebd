"""Which turn comes first, where a program's hooks are ahead of its record."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from iapeer.sessions.evidence import Fact

from .letters import Observed

AHEAD_MAX = 256
"""Ids kept of a program that tells its hooks of prompts and writes no record of them."""


class TurnOrder:
    """Places what a session's record tells among the prompts that its hooks told of.

    Within the record, and among the hooks, the order is the true one; times are not (measured:
    Claude Code 2.1.197 dates the interrupt of a turn up to 40 ms after the prompt of the next one,
    and writes both down when the hooks have told of the next turn's beginning, or even of its end).
    """

    def __init__(self) -> None:
        self._ahead: list[str] = []
        """Ids of prompts that only a hook has told of so far, oldest first."""
        self._read: set[str] = set()
        """Ids of the inputs of the newest turn in the record."""

    def copy(self) -> TurnOrder:
        """Return one to go on with, for as long as it is open whether what it is told is kept."""
        made = TurnOrder()
        made._ahead, made._read = list(self._ahead), set(self._read)
        return made

    def place(self, observed: Observed) -> tuple[Fact, ...]:
        """Return the facts, those of the record with what they must spare."""
        if observed.offset is None:
            for fact in observed.facts:
                if fact.begins:
                    self._ahead += [i for i in fact.ids if i not in (*self._read, *self._ahead)]
            del self._ahead[:-AHEAD_MAX]
            return observed.facts
        return tuple(self._placed(fact) for fact in observed.facts)

    def _placed(self, fact: Fact) -> Fact:
        if fact.kind == "user":
            self._reached(fact.ids)
            self._read = set(fact.ids) | (set() if fact.begins else self._read)
        if fact.begins or fact.kind == "turn_end":
            return msgspec.structs.replace(fact, spares=tuple(self._ahead))
        return fact

    def _reached(self, ids: Iterable[str]) -> None:
        """The record has come to these: to all that was told before them too."""
        for known in ids:
            if known in self._ahead:
                del self._ahead[: self._ahead.index(known) + 1]
