"""A session is not ended before its program has written down what it has read."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from iapeer.runtimes.spec import Record

from .evidence import read_line
from .model import TmuxSession
from .process import is_alive

RECORD_WAIT_S = 2.0
"""Longest wait (measured: in 6 of 132 turns on a busy machine the prompt was written only after the
hook that told of its turn's end, up to 0.17 s; Claude Code 2.1.197)."""
LOOK_S = 0.02
"""Between two looks."""
TAIL_BYTES = 8 << 20
"""So much of a record's end is looked at; what stands further back was written long ago."""

_TOLD = ("user", "enqueue")


async def until_recorded(session: TmuxSession) -> bool:
    """Wait until the program's record holds what it has told to have read since the last hand-over.

    A program that is ended earlier can lose it for good: Claude Code 2.1.197 appends its lines late
    and, on a busy machine, the answer before the prompt; a line that is still on its way when it is
    told to end is never written. The conversation is then gone on with without that prompt.

    False after `RECORD_WAIT_S`, or when the program has ended. True at once where the runtime keeps
    no record of prompts.
    """
    evidence = session.spec.evidence
    if not session.transcript or not any(record.kind == "user" for record in evidence.records):
        return True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RECORD_WAIT_S
    path, missing = Path(session.transcript), frozenset(session.proven)
    while missing:
        missing -= await asyncio.to_thread(_recorded, path, evidence.records, missing)
        if not missing:
            break
        if loop.time() >= deadline or not is_alive(*session.pane):
            return False
        await asyncio.sleep(LOOK_S)
    return True


def _recorded(path: Path, records: tuple[Record, ...], wanted: frozenset[str]) -> frozenset[str]:
    """Return those of the message ids that the end of a record holds as user input."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        # Not there yet, or not for us: nobody can say.
        return frozenset()
    found: set[str] = set()
    for line in lines:
        if any(message_id.encode() in line for message_id in wanted):
            fact = read_line(line, records, "")
            if fact is not None and fact.kind in _TOLD:
                found.update(fact.ids)
    return wanted & found
