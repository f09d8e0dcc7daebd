"""How every message ended: the ledger's rows against the daemon's API, and who was told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from iapeer.core.identity import CORE_ADDRESS
from iapeer.core.states import FINAL, UNDELIVERED, MessageState
from iapeer.storage.ledger import queries
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import MessageRow
from iapeer.testing.daemon import run_all

from .bodies import MARKER, any_number_in, number_in
from .fleet import Fleet
from .history import Fate

POLL_S = 0.5


def _rows(fleet: Fleet) -> list[MessageRow]:
    with offline_read(fleet.paths.ledger) as conn:
        return queries.search(conn, grep=MARKER, limit=1_000_000)


def wait_for_rest(fleet: Fleet, limit_s: float) -> bool:
    """Wait until nothing is undelivered and nothing landed waits for proof; False at the limit.

    What the core has to say itself is not waited for: notices wake nobody.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        fleet.ensure_up()
        moving = [r for r in _rows(fleet) if r.sender != CORE_ADDRESS and not _rests(r)]
        if not moving:
            return True
        time.sleep(POLL_S)
    return False


def _rests(row: MessageRow) -> bool:
    return row.state not in UNDELIVERED and not (row.state == "landed" and not row.final)


def fates(fleet: Fleet) -> list[Fate]:
    """Return how each message ended. Needs the daemon; raises AskFailed, StorageError."""
    found = _rows(fleet)
    notices = [row.body for row in found if row.sender == CORE_ADDRESS]
    ours = [row for row in found if row.sender != CORE_ADDRESS]
    states = run_all([partial(_api_state, fleet, row) for row in ours], workers=4)
    return [_fate(row, state, notices) for row, state in zip(ours, states, strict=True)]


def _fate(row: MessageRow, api_state: str, notices: Sequence[str]) -> Fate:
    return Fate(
        number=number_in(row.body) or any_number_in(row.body),
        message_id=row.id,
        sender=row.sender,
        recipient=f"{row.runtime}-{row.personality}",
        state=row.state,
        reason=row.reason,
        dup=row.dup,
        attempt=row.attempt,
        api_state=api_state,
        told=MessageState(row.state) not in FINAL or any(row.id in text for text in notices),
    )


def _api_state(fleet: Fleet, row: MessageRow) -> str:
    """Return the state the API tells; asked again once if it has just changed."""
    told = fleet.daemon.state(row.id)
    if told != row.state:
        with offline_read(fleet.paths.ledger) as conn:
            again = queries.get(conn, row.id)
        if again is not None and again.state == told:
            return str(row.state)
    return told
