"""From what is known of a session's end to the row that tells it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from iapeer.storage.ledger import marks, postmortems
from iapeer.storage.ledger.rows import PostmortemRow, SessionRow

from . import oom
from .causes import Evidence, What, classify
from .exits import ExitLine
from .redact import Redactor

SCREEN_ROWS = 40
"""So many last rows of a screen are kept."""

_SPOKEN = 8
"""So many of them may tell why the program left."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PAUSE = "api_error"
"""The mark under which a lane keeps that the model's API refused; its value has the reason."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: what ended, how, and what the screen showed last.

    `at` is seconds since the epoch. `line` is the record in exits.log, if there is one.
    """

    what: What
    at: float
    status: int | None = None
    signal: int | None = None
    screen: Sequence[str] = ()
    watched: bool = True
    stopped: bool = False
    line: ExitLine | None = None
    memory_kills: int = 0
    kernel: Sequence[str] = ()
    report: str = ""


@cache
def boot_id() -> str:
    """Return what names this run of the host, empty when the system does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        pass
    import psutil  # noqa: PLC0415 - where the kernel tells, it is not needed

    try:
        return f"boot-{psutil.boot_time():.0f}"
    except (psutil.Error, OSError):
        return ""


def kernel_lines(started_at: float, now: float) -> list[str]:
    """Return what the kernel has logged since the session's start; both are wall times."""
    return oom.kernel_lines(max(0.0, now - started_at))


def postmortem(conn: sqlite3.Connection, row: SessionRow, scene: Scene) -> PostmortemRow:
    """Judge one death and store it; return what is stored. Runs inside a write transaction."""
    return postmortems.record(conn, judge(conn, row, scene))


def judge(conn: sqlite3.Connection, row: SessionRow, scene: Scene) -> PostmortemRow:
    """Say what a session died of; writes nothing."""
    line = scene.line
    status, signal = scene.status, scene.signal
    if line is not None and status is None and signal is None:
        status, signal = line.status, line.signal
    shown = _last(scene.screen)
    # A server takes its screen along: then nothing is there to be kept from anybody.
    words = "\n".join(redactor_of(conn, row).screen(shown)) if shown else ""
    turn = postmortems.last_turn(conn, row.id)
    pids = {pid for pid in (row.server_pid, row.pane_pid) if pid}
    what: What = "boot" if row.ready_at is None and scene.what == "program" else scene.what
    verdict = classify(
        Evidence(
            what=what,
            status=status,
            signal=signal,
            recorder=line.cause if line is not None else "",
            watched=scene.watched,
            stopped=scene.stopped,
            rebooted=bool(row.boot_id) and row.boot_id != boot_id() and line is None,
            killed_for_memory=oom.named_in(scene.kernel, pids),
            memory_kills=scene.memory_kills,
            turn_end=turn[0] if turn else "",
            hold=_hold(conn, row),
            words="\n".join(shown[-_SPOKEN:]),
        )
    )
    return PostmortemRow(
        session_id=row.id,
        uid=row.uid,
        runtime=row.runtime,
        personality=row.personality,
        at=scene.at,
        what=what,
        cause=verdict.cause,
        confidence=verdict.confidence,
        why=verdict.why,
        status=status,
        signal=signal,
        watched=scene.watched,
        words=words,
        report=scene.report or (line.report if line is not None else ""),
    )


def redactor_of(conn: sqlite3.Connection, row: SessionRow) -> Redactor:
    """Return who knows the session's token by its digest, and the messages on its screen."""
    return Redactor((row.token_sha256,), postmortems.recent_bodies(conn, row.uid))


def _last(rows: Sequence[str]) -> list[str]:
    shown = [row.rstrip() for row in rows]
    while shown and not shown[-1]:
        shown.pop()
    return shown[-SCREEN_ROWS:]


def _hold(conn: sqlite3.Connection, row: SessionRow) -> str:
    for mark in marks.marks_of(conn, row.uid, row.runtime):
        if mark.mark == _PAUSE:
            try:
                return str(json.loads(mark.value)["reason"])
            except (ValueError, KeyError, TypeError):
                return _PAUSE
    return ""
