"""What a runtime's own record proves: pure reading of JSONL lines into facts.

Evidence can't be forged by quoting: only records the manifest names as user input (or the
runtime's queue) are looked at, and of their text only top-level envelopes count. A message that
quotes another envelope, or an assistant that prints one, yields nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from iapeer.core.envelope import decode, extract
from iapeer.core.errors import EnvelopeError
from iapeer.runtimes.spec import Record, lookup

FactKind = Literal["user", "enqueue", "dequeue", "turn_start", "turn_end"]

MAX_LINE_BYTES = 4 << 20
"""A record longer than this is skipped: a message is at most 64 KB, tool output may be anything."""


@dataclass(frozen=True)
class Fact:
    """One thing the runtime wrote down: `ids` are message ids of top-level envelopes, in order."""

    kind: FactKind
    ids: tuple[str, ...] = ()
    status: str = ""
    source: str = ""


def ids_in(text: str) -> tuple[str, ...]:
    """Return the ids of the top-level envelopes in a user input, in order."""
    found = []
    for candidate in extract(text)[0]:
        try:
            message_id = decode(candidate).id
        except EnvelopeError:
            continue
        if message_id:
            found.append(message_id)
    return tuple(found)


def read_line(line: bytes, records: Sequence[Record], source: str) -> Fact | None:
    """Return the fact in one JSONL line, None when it is of no known kind or no JSON."""
    try:
        decoded = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, Mapping):
        return None
    for record in records:
        if record.matches(decoded):
            text = lookup(decoded, record.text) if record.text else None
            status = lookup(decoded, record.status) if record.status else None
            return Fact(
                kind=record.kind,
                ids=ids_in(text) if isinstance(text, str) else (),
                status=status if isinstance(status, str) else "",
                source=source,
            )
    return None


class LineBuffer:
    """Cuts a growing file into complete lines; an over-long line is skipped, never kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    @property
    def pending(self) -> int:
        """Bytes of an incomplete last line."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            lines = lines[1:]
            self._skipping = False
        if len(rest) > MAX_LINE_BYTES:
            rest, self._skipping = b"", True
        self._rest = b"" if self._skipping else rest
        return [line for line in lines if len(line) <= MAX_LINE_BYTES]
