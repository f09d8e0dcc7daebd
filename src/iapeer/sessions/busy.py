"""Whether a turn runs, by the word that a program writes into a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

from iapeer.runtimes.spec import lookup
from iapeer.runtimes.templates import expand_one

from .model import TmuxSession

STATUS_MAX_BYTES = 1 << 16
"""A status file is a few hundred bytes (measured: 400 of Claude Code's)."""


def told_busy(session: TmuxSession) -> bool | None:
    """Return what the program's status file says; None where there is none or it makes no sense.

    The file's name holds the program's process id, so that another session's is never read.
    """
    evidence = session.spec.evidence
    if not evidence.status_file or not session.home:
        return None
    values = {"home": session.home, "pid": str(session.pane[0])}
    path = Path(expand_one(evidence.status_file, values) or "")
    try:
        with path.open("rb") as file:
            word = lookup(json.loads(file.read(STATUS_MAX_BYTES)), evidence.status_field)
    except (OSError, ValueError):
        return None
    return word in evidence.status_busy if isinstance(word, str) else None
