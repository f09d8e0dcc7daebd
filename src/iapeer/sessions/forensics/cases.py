"""The deaths of a root as a reader finds them, in ledger and exits.log; no daemon is needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iapeer.core.errors import IapeerError
from iapeer.storage.ledger import postmortems, sessions
from iapeer.storage.ledger.dbfile import ensure_ledger
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import HistoryRow, PostmortemRow, SessionRow
from iapeer.storage.paths import Paths

from . import records
from .causes import What
from .coroner import Scene, judge
from .exits import ExitLine, read

BUSY_S = 5.0
_MOMENT_S = 1e-3
_ALL = "iapeer deaths lists all deaths"
ID_LENGTH = 8
"""A death is named by the beginning of its session's id: a session dies once."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One death with everything that is known around it.

    `session` is None when its row has outlived its retention. `turn` is how its last turn ended
    (empty: it was running) and when, None when it had none; `steps` are the last ones of messages
    in it; `successor` the next session of the same identity.
    """

    death: PostmortemRow
    session: SessionRow | None
    turn: tuple[str, float | None] | None
    steps: Sequence[HistoryRow]
    successor: SessionRow | None
    records: Sequence[str]

    @property
    def id(self) -> str:
        """The name of this death."""
        return death_id(self.death)


def death_id(death: PostmortemRow) -> str:
    """Return the name of a death."""
    return death.session_id[:ID_LENGTH]


def deaths(paths: Paths, uid: str | None = None, limit: int = 50) -> list[PostmortemRow]:
    """Return the newest deaths, newest first. Raises StorageError."""
    if not paths.ledger.exists():
        return []
    # A ledger of an older version has no table of deaths yet.
    ensure_ledger(paths.ledger, BUSY_S)
    with offline_read(paths.ledger) as conn:
        return _newest(conn, paths, uid, limit)


def case(paths: Paths, *, uid: str | None = None, name: str = "") -> Case:
    """Return the newest death of a peer, or the one that `name` is the beginning of the id of.

    Raises IapeerError (`unknown_death`), StorageError.
    """
    if not paths.ledger.exists():
        raise IapeerError("nobody has died here", hint=_ALL, code="unknown_death")
    ensure_ledger(paths.ledger, BUSY_S)
    with offline_read(paths.ledger) as conn:
        found = _newest(conn, paths, uid, 1 if uid is not None else -1)
        if uid is None:
            found = [death for death in found if death.session_id.startswith(name)]
        if not found:
            raise IapeerError(
                f"no death {name!r}" if uid is None else f"{name} has not died",
                hint=_ALL,
                code="unknown_death",
            )
        if len(found) > 1 and uid is None:
            raise IapeerError(
                f"{name!r} begins several ids", hint="give more of it", code="unknown_death"
            )
        return _case(conn, found[0])


def _case(conn: sqlite3.Connection, death: PostmortemRow) -> Case:
    row = sessions.get_session(conn, death.session_id)
    transcript = row.transcript if row is not None else ""
    # Records have whole seconds: a short session seems to have died before its start.
    after = death.at if row is None else max(death.at, row.started_at + _MOMENT_S)
    return Case(
        death=death,
        session=row,
        turn=postmortems.last_turn(conn, death.session_id),
        steps=postmortems.steps_of(conn, death.session_id, 12),
        successor=sessions.next_of(conn, death.uid, death.runtime, after),
        records=records.kinds(Path(transcript)) if transcript else (),
    )


def _newest(
    conn: sqlite3.Connection, paths: Paths, uid: str | None, limit: int
) -> list[PostmortemRow]:
    """Return what the ledger has, and what so far only exits.log tells."""
    found = postmortems.newest(conn, uid, limit)
    known = {death.session_id for death in found}
    for line in read(paths.exits_log):
        if line.session in known or line.own_server or not line.session:
            continue
        known.add(line.session)
        row = sessions.get_session(conn, line.session)
        is_wanted = row is not None and (uid is None or row.uid == uid)
        if row is not None and is_wanted and postmortems.of_session(conn, row.id) is None:
            found.append(_unjudged(conn, row, line))
    found.sort(key=lambda death: death.at, reverse=True)
    return found if limit < 0 else found[:limit]


def _unjudged(conn: sqlite3.Connection, row: SessionRow, line: ExitLine) -> PostmortemRow:
    """Judge by the record alone: no daemon has come back since."""
    what: What = "program" if line.ev == "session-exit" else "server"
    scene = Scene(what=what, at=line.at or row.started_at, watched=False, line=line)
    return judge(conn, row, scene)
