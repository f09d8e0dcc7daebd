"""Who tells the lane that its session died and what it wrote down, and how a lane complains."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iapeer.core.errors import IapeerError
from iapeer.sessions.evidence import Fact
from iapeer.sessions.follow import TranscriptFollower
from iapeer.sessions.model import TmuxSession
from iapeer.storage.ledger import sessions as rows

from .letters import Died, Observed, Report, Session

if TYPE_CHECKING:
    from iapeer.core.identity import Identity

    from .journal import Journal
    from .services import LaneServices, LifecycleLog


def tell(log: LifecycleLog, identity: Identity, error: Exception) -> None:
    """Write down what went wrong in a lane; a defect of ours also goes to stderr."""
    if isinstance(error, IapeerError):
        log("lane-error", identity=identity.address, reason=str(error))
        return
    log("lane-error", identity=identity.address, reason=repr(error))
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(f"[iapeer] lane {identity.address}: {text}\n")


async def watch(
    session: TmuxSession, services: LaneServices, report: Callable[[Report], None]
) -> None:
    """Report deaths of server and program, and facts of the transcript, until `release`.

    The record is read on from where the ledger says that it was read to.
    """
    session_id = session.id
    row = await services.ledger.read(lambda c: rows.get_session(c, session_id))
    for pid, start in session.processes:
        handle = services.deaths.watch(pid, start, lambda: report(Died(session_id)))
        session.stops.append(handle.cancel)
    await services.launcher.connect(session)
    if row is not None:
        _read_on(session, row.read_offset, services, report)
    session.told.listen(lambda facts: observe(session, Observed(session_id, tuple(facts)), report))


def observe(session: Session | None, observed: Observed, report: Callable[[Report], None]) -> None:
    """Report what a hook or channel told, behind what the session's record has told by now.

    Where the last turn ended stands in the record, and that is written before the next one begins.
    What the record tells later is not looked at for it, however long the report has to wait: the
    end of one turn would come behind the beginning of the next, and end that.
    """
    if isinstance(session, TmuxSession) and session.follower is not None:
        with contextlib.suppress(OSError):
            # It is read at its next change; what was told counts all the same.
            session.follower.read_new()
    if isinstance(session, TmuxSession) and session.id == observed.session_id:
        _note(session, observed.facts)
    report(observed)


def _note(session: TmuxSession, facts: Sequence[Fact]) -> None:
    """Let the door that is handing a message over know at once that the program has it."""
    for fact in facts:
        if fact.kind in ("user", "enqueue"):
            session.proven.extend(fact.ids)


def _read_on(
    session: TmuxSession, offset: int, services: LaneServices, report: Callable[[Report], None]
) -> None:
    """Follow the session's record from `offset` on; without one there is nothing to follow."""
    records = session.spec.evidence.records
    if not session.transcript or not records:
        return
    session_id = session.id

    def read(facts: Sequence[Fact], offset: int) -> None:
        _note(session, facts)
        report(Observed(session_id, tuple(facts), offset))

    session.follower = TranscriptFollower(Path(session.transcript), records, offset, read)
    session.stops.append(session.follower.stop)
    session.follower.start(services.notifier)


async def follow(
    session: TmuxSession,
    fact: Fact,
    journal: Journal,
    services: LaneServices,
    report: Callable[[Report], None],
) -> None:
    """Move on when the runtime says that it talks in another conversation now.

    A person's `/clear` makes a new one in the same program; so does a runtime that keeps its record
    elsewhere than its manifest says.
    """
    native_id = fact.native_id or session.native_id
    transcript = fact.transcript or session.transcript
    if (native_id, transcript) == (session.native_id, session.transcript):
        return
    moved = transcript != session.transcript
    await journal.move(session.id, native_id, transcript)
    session.native_id, session.transcript = native_id, transcript
    services.log(
        "conversation", identity=journal.identity.address, session=session.id, ref=native_id
    )
    if not moved or not session.spec.evidence.records:
        return
    if session.follower is not None:
        session.follower.stop()
    with contextlib.suppress(OSError):
        # Its folder is not there: no record can be followed, its hooks still tell.
        _read_on(session, 0, services, report)
