"""Accept a message, then wait for what becomes of it.

Everything that can be refused is refused before the ledger's commit; from then on nothing can be
lost, and cancelling the call cancels only the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from sqlite3 import Connection

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.draft import Draft
from iapeer.core.errors import (
    IapeerError,
    SendRefused,
    StorageError,
)
from iapeer.core.identity import Identity
from iapeer.core.outcomes import SendResult
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.core.states import FINAL, HoldReason, MessageState
from iapeer.registry.caller import Caller
from iapeer.storage.ledger import queries
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.logs import LogFile

from .admission import Accepted, Admission, SendRequest
from .archive import story
from .lanes.pool import Lanes
from .lanes.presence import Phase, Settled
from .ports import Trace
from .sendlog import Outcome, delivery_line
from .waits import Key, Waits, is_answer


class Guarded(msgspec.Struct, frozen=True):
    """What the router works with."""

    settings: Settings
    clock: Clock
    ledger: Ledger
    admission: Admission


class _Sending(msgspec.Struct, frozen=True):
    """One call of `send`; `began` is monotonic."""

    request: SendRequest
    began: float

    @property
    def draft(self) -> Draft:
        """What is to be sent."""
        return self.request.draft


class Router:
    """The one way in for every entrance."""

    def __init__(self, guarded: Guarded, lanes: Lanes, waits: Waits, log: LogFile) -> None:
        self._g = guarded
        self._lanes = lanes
        self._waits = waits
        self._log = log

    async def send(
        self, caller: Caller, draft: Draft, *, path: str, key: str | None = None
    ) -> SendResult:
        """Accept `draft` and wait by the waiting rule; see `ports.Postman`."""
        depth = self._lanes.depth(_lane_of(caller))
        request = SendRequest(caller=caller, draft=draft, path=path, key=key, depth=depth)
        sending = _Sending(request, self._g.clock.monotonic())
        try:
            with self._lanes.calling(_lane_of(caller)):
                result = await self._send(sending)
        except IapeerError as error:
            self._log_line(sending, error=error.message)
            raise
        self._log_line(sending, result=result)
        return result

    async def _send(self, sending: _Sending) -> SendResult:
        record = self._g.admission.recipient(sending.draft)
        arms = sending.request.arms
        live = [rt for rt in record.runtimes if self._phase(record, rt) == Phase.LIVE]
        settled = self._settled(record)
        held = {rt: answer.reason for rt, answer in settled.items()}
        reach = self._g.admission.reach(record, sending.draft, live, held)
        now = self._g.clock.now()
        accepted = await self._g.ledger.write(
            lambda c: self._g.admission.accept(c, sending.request, record, reach, now),
            refuses_first=True,
        )
        # No other step of this message is told before it is watched: its job comes after ours.
        row = accepted.row
        if arms:
            self._lanes.said_its_word(_lane_of(sending.request.caller))
        identity = Identity(row.runtime, row.personality)
        lane: Key = (row.to_uid, row.runtime)
        is_live = self._lanes.phase(lane) == Phase.LIVE
        with self._waits.watch(row.id, lane) as changed:
            before = settled.get(row.runtime)
            if not accepted.repeated and (before is None or before != self._lanes.settled(lane)):
                self._lanes.work(row.to_uid, identity)
            return await self._wait(accepted, changed, live=is_live)

    def _settled(self, record: RegistryRecord) -> dict[str, Settled]:
        """Return why a message waits, for each runtime where that needs no step of its lane."""
        found = {rt: self._lanes.settled((record.uid, rt)) for rt in record.runtimes}
        return {rt: answer for rt, answer in found.items() if answer is not None}

    def _phase(self, record: RegistryRecord, runtime: str) -> Phase:
        return self._lanes.phase((record.uid, runtime))

    async def trace(self, message_id: str) -> Trace:
        """Return the way of one message. Raises PeerNotFound (`unknown_message`)."""
        return await self._g.ledger.read(lambda c: story(c, message_id))

    async def _wait(self, accepted: Accepted, changed: asyncio.Event, *, live: bool) -> SendResult:
        """Return at the first of: landed, refused or failed, a hold but `waking`, the limit."""
        settings, clock = self._g.settings, self._g.clock
        row, depth = accepted.row, accepted.queue_depth
        began, woke = clock.monotonic(), False
        while True:
            waking = row.state == MessageState.HELD and row.reason == HoldReason.WAKING
            woke = woke or row.woke
            if is_answer(row.state, row.reason):
                break
            # A reader that was not there at first may have come by itself, without a boot.
            live = live or row.state == MessageState.IN_FLIGHT
            limit = settings.wait_waking_s if waking or woke or not live else settings.wait_live_s
            left = limit - (clock.monotonic() - began)
            if left <= 0:
                break
            # Not `wait_for`: that of Python 3.11 loses a cancel that comes with the change.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
            changed.clear()
            row, depth = await self._look(row)
        if row.state in FINAL:
            raise SendRefused(
                f"{row.runtime}-{row.personality}: message {row.id} {row.state}: {row.reason}",
                code=row.state,
            )
        return SendResult(
            message_id=row.id,
            personality=row.personality,
            runtime=row.runtime,
            state=row.state,
            ts=row.accepted_ts,
            reason=row.reason,
            woke=woke,
            queue_depth=depth,
            repeated=accepted.repeated,
        )

    async def _look(self, row: MessageRow) -> tuple[MessageRow, int]:
        """Return a message as it is now, and how much its reader has not been given yet."""

        def look(conn: Connection) -> tuple[MessageRow | None, int]:
            return queries.get(conn, row.id), queries.depth(conn, row.to_uid, row.runtime)

        found, depth = await self._g.ledger.read(look)
        if found is None:
            raise StorageError(f"message {row.id} is not in the ledger any more")
        return found, depth

    def _log_line(
        self, sending: _Sending, *, result: SendResult | None = None, error: str = ""
    ) -> None:
        elapsed_s = self._g.clock.monotonic() - sending.began
        outcome = Outcome(sending.request, elapsed_s, result, error)
        self._log.append(delivery_line(self._g.clock.now(), outcome))


def _lane_of(caller: Caller) -> Key:
    return (caller.record.uid, caller.identity.runtime)
