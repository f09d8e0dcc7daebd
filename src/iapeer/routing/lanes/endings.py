"""The end of a session: what it died of, and which of its messages must go round again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from iapeer.core.errors import RuntimeUnknown, SessionGone, TmuxError
from iapeer.core.states import MessageState
from iapeer.sessions.evidence import Fact
from iapeer.sessions.follow import TranscriptFollower
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.process import is_alive
from iapeer.sessions.screen import read_screen
from iapeer.sessions.tmux.options import PASTED
from iapeer.sessions.tmux.server import PaneFacts
from iapeer.storage.ledger.rows import SessionRow

from .delivery import marker_of
from .journal import Journal
from .letters import Session
from .presence import Aftermath, Cause, Ending

if TYPE_CHECKING:
    from .services import LaneServices

NOTICE_GAPS_S = (0.002, 0.004, 0.008, 0.016, 0.032, *(0.05,) * 28)
"""Between looks until tmux knows what the kernel has told us, 1.5 s in all: a step takes 2 s at
most. tmux learns of its child's end by SIGCHLD, the lane by pidfd, often a little earlier."""


class Obituary(msgspec.Struct, frozen=True):
    """How a session died; `status` and `signal` are None when nobody knows.

    `pid` is the process whose end was the session's, None where only tmux knows.
    """

    cause: str
    server_alive: bool
    pid: int | None = None
    status: int | None = None
    signal: int | None = None
    tail: str = ""

    @property
    def death(self) -> str:
        """The contract's class of this death."""
        return "session-gone" if self.server_alive else "server-dead"

    def describe(self) -> str:
        """Return one line for people."""
        how = self.cause
        if self.status is not None:
            how += f", exit status {self.status}"
        if self.signal is not None:
            how += f", signal {self.signal}"
        return f"{how}; last words: {self.tail}" if self.tail else how

    def log_fields(self, identity: str, session_id: str) -> Mapping[str, object]:
        """Return the fields of the line that tells of it first; unknown values are empty there."""
        return {
            "identity": identity,
            "session": session_id,
            "cause": self.cause,
            "pid": "" if self.pid is None else self.pid,
            "dead_status": "" if self.status is None else self.status,
            "dead_signal": "" if self.signal is None else self.signal,
        }


async def examine(session: TmuxSession) -> Obituary | None:
    """Return how a session died, None when it lives after all.

    The kernel is asked first: of a server that is gone nobody could say more. Raises TmuxError
    when it can't be known.
    """
    facts: PaneFacts | None = None
    if is_alive(*session.server):
        try:
            facts = await _facts(session)
        except SessionGone:
            return Obituary("session-gone", server_alive=True)
        except TmuxError:
            if is_alive(*session.server):
                raise
    if facts is None:
        return Obituary("server-gone", server_alive=False, pid=session.server[0])
    if not facts.pane_dead and is_alive(*session.pane):
        if session.aux is None or is_alive(*session.aux):
            return None
        # The program lives on without its own server: it can neither hear nor do anything.
        return Obituary("own-server-exit", server_alive=True, pid=session.aux[0])
    tail = ""
    with contextlib.suppress(TmuxError):
        # tmux scrolls a dead pane up by one row for its own line: a lone last word is there.
        text = await session.tmux.capture(styled=True, history_lines=1)
        tail = read_screen(text, session.marks).tail
    return Obituary(
        "program-exit",
        server_alive=True,
        pid=session.pane[0],
        status=facts.dead_status,
        signal=facts.dead_signal,
        tail=tail,
    )


async def _facts(session: TmuxSession) -> PaneFacts | None:
    """Return the facts; the kernel tells of a death before tmux has read the last words of it.

    Raises SessionGone, TmuxError.
    """
    facts = await session.tmux.facts()
    for gap_s in NOTICE_GAPS_S:
        if facts is None or facts.pane_dead or is_alive(*session.pane):
            break
        await asyncio.sleep(gap_s)
        facts = await session.tmux.facts()
    return facts


class End(msgspec.Struct, frozen=True):
    """How a session ends: `cause` for the log, what the rules made of it, and its obituary.

    `obituary` is None for a deliberate end.
    """

    cause: str
    ending: Ending
    aftermath: Aftermath
    obituary: Obituary | None = None


async def give_back(session: Session, journal: Journal, end: End) -> None:
    """Return what a session leaves unproven, marked unless provably nothing was handed over."""
    obituary, cause = end.obituary, end.cause
    done = await _settle_turn(session.id, journal, end)
    unproven = [row for row in await journal.outstanding(session.id) if row.id != done]
    if not unproven:
        return
    marked = {row.id for row in unproven}
    if isinstance(session, TmuxSession) and (obituary is None or obituary.server_alive):
        pasted: str | None = None
        with contextlib.suppress(TmuxError):
            pasted = await session.tmux.option(PASTED) or ""
        if pasted is not None:
            marked -= {
                row.id
                for row in unproven
                if row.state == MessageState.IN_FLIGHT and marker_of(row) != pasted
            }
    await journal.return_all(unproven, frozenset(marked), f"session ended: {cause}")


async def _settle_turn(session_id: str, journal: Journal, end: End) -> str:
    """Settle the turn that was not finished; return the id of a task that is, without a proof.

    Whoever has answered has read what it was asked.
    """
    died = end.ending.cause in (Cause.DEATH, Cause.WALL)
    if not end.ending.ephemeral:
        await journal.end_session_turn(session_id, died=died)
        return ""
    task = await journal.task(session_id)
    await journal.end_task(session_id, died=died, again=end.aftermath.task_again)
    return task if end.ending.armed else ""


async def clear(session: Session, journal: Journal, services: LaneServices, cause: str) -> None:
    """End a session's processes or stream, and write its end down. May be done twice."""
    if isinstance(session, TmuxSession):
        await services.launcher.end(session, cause)
        await journal.disarm(session.id)
    else:
        session.end()
        await journal.close_stream(session.id, cause)
    services.by_session.pop(session.id, None)


async def bury(
    row: SessionRow,
    journal: Journal,
    services: LaneServices,
    *,
    why: Ending,
    is_newest: bool = True,
) -> None:
    """Settle a session that died while no daemon watched, and clear its remains.

    Its record is read to the end first: what it proves is not handed over again. An older one of
    the same identity has only its row settled: the socket is the newest one's. `why` is what is
    known without its record.
    """
    if row.transcript:
        await _read_record(row, journal, services)
    armed = why.ephemeral and await journal.armed(row.id)
    mid_turn = await journal.turn_open(row.id)
    ending = msgspec.structs.replace(why, armed=armed, mid_turn=mid_turn)
    end = End("died unwatched", ending, services.rules.after(ending))
    done = await _settle_turn(row.id, journal, end)
    unproven = [m for m in await journal.outstanding(row.id) if m.id != done]
    never_ready = row.ready_at is None
    marked = frozenset() if never_ready else frozenset(m.id for m in unproven)
    await journal.return_all(unproven, marked, "the session died while no daemon ran")
    if row.socket and is_newest:
        await services.launcher.clear(row, "died unwatched")
        await journal.disarm(row.id)
    else:
        await journal.close_stream(row.id, "daemon restarted")


async def _read_record(row: SessionRow, journal: Journal, services: LaneServices) -> None:
    """Take the last evidence of a dead session."""
    try:
        spec = services.catalog.get(row.runtime)
    except RuntimeUnknown:
        # Its manifest is gone: nothing can be read, so what is unproven goes round, marked.
        return
    found: list[tuple[list[Fact], int]] = []
    follower = TranscriptFollower(
        Path(row.transcript),
        spec.evidence.records,
        row.read_offset,
        lambda facts, offset: found.append((facts, offset)),
    )
    follower.read_new()
    for facts, offset in found:
        await journal.take(row.id, facts, offset)
