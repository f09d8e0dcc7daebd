"""What one round with one system gives, and what all rounds together say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.figures import Spread, spread


class NotRun(Exception):
    """A system could not be measured here; the text says why, in a few words."""


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """Many messages at once: what the senders were told, and what the recipient got.

    `calls_s`: until the last call had returned; `arrived_s`: until the last arrival, both since
    the first send. `arrived` counts different messages, `doubled` those that came again.
    """

    senders: int
    sent: int
    """Calls that returned without an error."""
    refused: int
    calls_s: float
    arrived: int
    doubled: int
    arrived_s: float
    error: str = ""
    """The first thing a sender was told, if any call failed."""

    @property
    def sent_per_s(self) -> float:
        """Calls that returned without an error, per second."""
        return self.sent / self.calls_s

    @property
    def arrived_per_s(self) -> float:
        """Different messages that arrived, per second."""
        return self.arrived / self.arrived_s if self.arrived_s else 0.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One round. Times in seconds; None where there is nothing to measure."""

    start_s: float
    sent_s: tuple[float, ...]
    seen_s: tuple[float, ...] = ()
    one: Burst | None = None
    many: Burst | None = None
    uss_mib: float | None = None
    pss_mib: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """How much one round does. The burst has `senders` times `each` messages."""

    samples: int = 100
    single: int = 200
    """Messages of the one sender."""
    senders: int = 16
    each: int = 125
    slow: bool = True
    """Whether systems that need minutes for a burst do one in this round."""


@dataclass(frozen=True)
class Rival:
    """One column: `prepare` installs and returns where, `measure` does a round.

    Both raise NotRun. `promise` says in one cell what a sender may rely on when its call has
    returned.
    """

    name: str
    version: str
    prepare: Callable[[], Path]
    measure: Callable[[Path, Plan], Reading]
    commands: tuple[str, ...]
    entrance: str
    recipient: str
    promise: str
    rounds: int = 3
    told: bool = True
    """Whether the sender hears that the message was taken."""
    delivers: bool = True
    """Whether there is a recipient to arrive at."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """All rounds of one system, or the reason why there is none."""

    name: str
    version: str
    entrance: str
    recipient: str
    promise: str
    commands: tuple[str, ...]
    told: bool = True
    delivers: bool = True
    readings: tuple[Reading, ...] = ()
    reason: str = ""

    @property
    def sent(self) -> Spread | None:
        """How long a send takes to return, over all rounds, in ms."""
        return _pooled([reading.sent_s for reading in self.readings])

    @property
    def seen(self) -> Spread | None:
        """From the send until the recipient has it, over all rounds, in ms."""
        return _pooled([reading.seen_s for reading in self.readings])

    @property
    def start(self) -> Spread | None:
        """From the start of the process to its first answer, in ms."""
        return _pooled([(reading.start_s,) for reading in self.readings])

    @property
    def single(self) -> tuple[Burst, ...]:
        """What the lone sender did, in each round that had one."""
        return tuple(reading.one for reading in self.readings if reading.one)

    @property
    def bursts(self) -> tuple[Burst, ...]:
        """The burst of each round that had one."""
        return tuple(reading.many for reading in self.readings if reading.many)


def column_of(rival: Rival, readings: Sequence[Reading], reason: str = "") -> Column:
    """Return a system's column."""
    return Column(
        name=rival.name,
        version=rival.version,
        entrance=rival.entrance,
        recipient=rival.recipient,
        promise=rival.promise,
        commands=rival.commands,
        told=rival.told,
        delivers=rival.delivers,
        readings=tuple(readings),
        reason=reason,
    )


def _pooled(rounds: Sequence[tuple[float, ...]]) -> Spread | None:
    samples = [sample for one in rounds for sample in one]
    return spread(samples, 1000) if samples else None
