"""What happened, as values, one JSON line each: the only thing the checker looks at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Path_ = Literal["http", "cli", "mcp"]
Outcome = Literal["ok", "refused", "unknown"]


class Call(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """One send. `number` is unique in the run, rises with each call of a sender and is in the body.

    `refused` is an answer that says that nothing was stored; `unknown` is every other end without
    an ok: no answer, a broken one, or an error of the store, which may have kept the message.
    Times are seconds since the epoch.
    """

    number: int
    sender: str
    recipient: str
    path: Path_
    outcome: Outcome
    began: float
    ended: float
    message_id: str = ""
    state: str = ""
    code: str = ""


class Showing(msgspec.Struct, frozen=True, kw_only=True, tag="showing"):
    """A message as its reader got it, in the reader's own record.

    `number` is 0 when the text holds none of ours; `intact` says that it was one whole envelope
    with exactly the body that was sent and nothing beside it.
    """

    reader: str
    number: int
    message_id: str
    dup: bool
    at: float
    session: str
    intact: bool = True


class Fate(msgspec.Struct, frozen=True, kw_only=True, tag="fate"):
    """How a message ended: the ledger's row, and whether the daemon's API tells the same.

    `told` says that the sender has a notice about it (only asked for what failed or expired).
    """

    number: int
    message_id: str
    sender: str
    recipient: str
    state: str
    reason: str
    dup: bool
    attempt: int
    api_state: str
    told: bool


class Twins(msgspec.Struct, frozen=True, kw_only=True, tag="twins"):
    """Two live sessions of one identity, both proven alive around one moment."""

    identity: str
    detail: str
    at: float


class Leak(msgspec.Struct, frozen=True, kw_only=True, tag="leak"):
    """Body text where none may be: a command line or a log."""

    where: str


class Stray(msgspec.Struct, frozen=True, kw_only=True, tag="stray"):
    """A process of this root that runs at the end and may not; see `remains`."""

    detail: str


class Deed(msgspec.Struct, frozen=True, kw_only=True, tag="deed"):
    """One thing that was done to the system.

    `outcome`: `done`, `missed` (its target was not there) or `unavailable` (not possible on this
    machine). For `fsync_error` the times are those between which every sync failed.
    """

    kind: str
    target: str
    outcome: Literal["done", "missed", "unavailable"]
    began: float
    ended: float
    detail: str = ""


Event = Call | Showing | Fate | Twins | Leak | Stray | Deed


class History:
    """An append-only JSONL file; one `write` per line in append mode, so threads can't mix."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self.path = path

    def add(self, event: Event) -> None:
        """Append one event. Raises OSError."""
        line = msgspec.json.encode(event) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"{self.path}: a line was not written whole")

    def add_all(self, events: Iterable[Event]) -> None:
        """Append several events. Raises OSError."""
        for event in events:
            self.add(event)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_history(path: Path) -> Sequence[Event]:
    """Return all events of a file in order. Raises OSError, msgspec.DecodeError."""
    decoder = msgspec.json.Decoder(Event)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]
