"""Who tells the lane that its session died and what it wrote down, and how a lane complains."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from iapeer.core.errors import IapeerError
from iapeer.sessions.follow import TranscriptFollower
from iapeer.storage.ledger import sessions as rows

from .letters import Died, Observed, Report

if TYPE_CHECKING:
    from iapeer.core.identity import Identity
    from iapeer.sessions.model import TmuxSession

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
    records = session.spec.evidence.records
    row = await services.ledger.read(lambda c: rows.get_session(c, session_id))
    for pid, start in (session.server, session.pane):
        handle = services.deaths.watch(pid, start, lambda: report(Died(session_id)))
        session.stops.append(handle.cancel)
    if row is None or not row.transcript or not records:
        return
    session.follower = TranscriptFollower(
        Path(row.transcript),
        records,
        row.offset,
        lambda facts, offset: report(Observed(session_id, tuple(facts), offset)),
    )
    session.stops.append(session.follower.stop)
    session.follower.start(services.notifier)
