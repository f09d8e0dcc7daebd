"""What the ledger tells about messages, and what an operator does about those that ended badly.

The functions take a connection inside a transaction and serve the daemon and a command line while
no daemon runs; `ArchiveService` is the daemon's side of `ports.Archive`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Connection

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.draft import Draft
from iapeer.core.errors import IapeerError, InvalidInput, PeerNotFound
from iapeer.core.identity import Identity, parse_identity
from iapeer.core.outcomes import SendResult
from iapeer.core.profile import RegistryRecord
from iapeer.core.text import one_line, safe_text
from iapeer.registry.caller import Caller
from iapeer.registry.index import Registry, RegistrySnapshot
from iapeer.storage.ledger import deadletters, queries, turns
from iapeer.storage.ledger.rows import MessageRow
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.logs import LogFile

from .admission import Admission, SendRequest
from .lanes.pool import Lanes
from .lanes.presence import Phase
from .ports import MessageQuery, MessageView, Settled, Trace, TraceStep, TraceTurn
from .sendlog import Outcome, delivery_line

QUOTE_CHARS = 60
"""How much of a body a list may show."""

_SAFE_DOORS = frozenset({"paste", "pane"})
"""Doors that pass a body through `safe_text`: they type into a terminal."""

Live = Callable[[RegistryRecord], Sequence[str]]
"""Tells which runtimes of a peer have a live session."""


class Redelivery(msgspec.Struct, frozen=True):
    """A dead letter and the new message that carries its text."""

    request: SendRequest
    new: MessageRow

    def log_line(self, now: float) -> str:
        """Return what delivery.log says of the new message; its elapsed time is none."""
        result = SendResult(
            message_id=self.new.id,
            personality=self.new.personality,
            runtime=self.new.runtime,
            state=self.new.state,
            ts=self.new.accepted_ts,
        )
        return delivery_line(now, Outcome(self.request, 0.0, result))


def find(conn: Connection, peers: RegistrySnapshot, query: MessageQuery) -> list[MessageView]:
    """Return what matches, newest first."""
    uid, name = _about(peers, query.peer)
    rows = queries.search(
        conn,
        peer_uid=uid,
        peer_name=name,
        state=query.state,
        grep=query.grep,
        limit=query.limit,
    )
    return [_view(row, body=query.bodies) for row in rows]


def find_dead(
    conn: Connection, peers: RegistrySnapshot, peer: str | None, limit: int
) -> list[MessageView]:
    """Return the dead letters, those of one peer if it is named, in order of acceptance."""
    uid, name = _about(peers, peer)
    return [_view(row) for row in deadletters.dead_letters(conn, uid, name, limit)]


def story(conn: Connection, message_id: str) -> Trace:
    """Return the way of one message. Raises PeerNotFound (`unknown_message`)."""
    row = queries.get(conn, message_id)
    if row is None:
        raise PeerNotFound(
            f"no message {message_id!r} in the ledger",
            hint="iapeer messages lists them; they are forgotten after 180 days",
            code="unknown_message",
        )
    steps = tuple(
        TraceStep(
            at=step.at,
            state=step.state,
            event=step.event,
            reason=step.reason,
            door=step.door,
            attempt=step.attempt,
            evidence=step.evidence,
        )
        for step in queries.history(conn, message_id)
    )
    ends = tuple(
        TraceTurn(
            attempt=turn.attempt, seen_at=turn.seen_at, end=turn.turn_end, ended_at=turn.ended_at
        )
        for turn in turns.turns_of(conn, message_id)
    )
    return Trace(
        id=row.id,
        sender=row.sender,
        recipient=_address(row),
        state=row.state,
        reason=row.reason,
        topic=row.topic,
        length=len(row.body),
        dup=row.dup,
        accepted_ts=row.accepted_ts,
        steps=steps,
        turns=ends,
        answered_by=row.answered_by,
        altered=safe_text(row.body).altered if row.door in _SAFE_DOORS else 0,
    )


class Reviver(msgspec.Struct, frozen=True):
    """Gives the text of a dead letter to its reader once more, as a new message.

    Sender and recipient are found by their uid: a renamed peer keeps its letters, a namesake of
    a removed one gets nothing. `path` names the entrance.
    """

    admission: Admission
    registry: Registry
    live: Live
    path: str

    def redeliver(self, conn: Connection, message_id: str, now: float) -> Redelivery:
        """Accept the new message and note it in both histories.

        Raises as `deadletters.dead_letter` and `Admission` do, and InvalidInput for a notice of
        the core (`notice`) and for a body that is forgotten (`purged`).
        """
        old = deadletters.dead_letter(conn, message_id)
        if not old.sender_uid:
            raise InvalidInput(
                f"message {old.id} is a notice of the core: its news is old",
                hint=f"iapeer dead-letter drop {old.id}",
                code="notice",
            )
        if old.purged:
            raise InvalidInput(
                f"the body of message {old.id} is forgotten: its retention is over",
                hint=f"iapeer dead-letter drop {old.id}",
                code="purged",
            )
        peers = self.registry.snapshot(allow_stale=True)
        draft = Draft(
            to=_registered(peers, old.to_uid, old.personality).personality,
            message=old.body,
            runtime=old.runtime if old.pinned else None,
            topic=old.topic,
            attachments=old.attachments,
        )
        request = SendRequest(
            caller=_sender_of(peers, old), draft=draft, path=self.path, depth=old.depth
        )
        record = self.admission.recipient(draft)
        reach = self.admission.reach(record, draft, self.live(record))
        new = self.admission.accept(conn, request, record, reach, now).row
        deadletters.note_redelivered(conn, old, new, now)
        return Redelivery(request, new)


class ArchiveService(msgspec.Struct, frozen=True):
    """The daemon's archive.

    `admission` here has no guards: they slow machines down that talk in circles, and a redelivery
    is an operator's single act. Everything else is refused as for any message.
    """

    ledger: Ledger
    registry: Registry
    admission: Admission
    lanes: Lanes
    clock: Clock
    log: LogFile

    async def messages(self, query: MessageQuery) -> list[MessageView]:
        """Return what matches, newest first; see `ports.Archive`."""
        peers = self.registry.snapshot(allow_stale=True)
        return await self.ledger.read(lambda c: find(c, peers, query))

    async def dead_letters(self, peer: str | None, limit: int) -> list[MessageView]:
        """Return the dead letters; see `ports.Archive`."""
        peers = self.registry.snapshot(allow_stale=True)
        return await self.ledger.read(lambda c: find_dead(c, peers, peer, limit))

    async def redeliver(self, ids: Sequence[str], path: str) -> list[Settled]:
        """Redeliver each in a transaction of its own; one that is refused spares the others."""
        reviver = Reviver(self.admission, self.registry, self._live, path)
        results = []
        for message_id in ids:
            write = partial(reviver.redeliver, message_id=message_id, now=self.clock.now())
            try:
                done = await self.ledger.write(write)
            except IapeerError as error:
                results.append(refused(message_id, error))
                continue
            self.log.append(done.log_line(self.clock.now()))
            self.lanes.work(done.new.to_uid, Identity(done.new.runtime, done.new.personality))
            results.append(Settled(id=message_id, new_id=done.new.id))
        return results

    async def drop(self, ids: Sequence[str]) -> list[Settled]:
        """Drop each; one that is refused spares the others."""
        results = []
        for message_id in ids:
            write = partial(deadletters.drop, message_id=message_id, now=self.clock.now())
            try:
                await self.ledger.write(write)
            except IapeerError as error:
                results.append(refused(message_id, error))
            else:
                results.append(Settled(id=message_id))
        return results

    def _live(self, record: RegistryRecord) -> list[str]:
        return [
            runtime
            for runtime in record.runtimes
            if self.lanes.phase((record.uid, runtime)) == Phase.LIVE
        ]


def refused(message_id: str, error: IapeerError) -> Settled:
    """Return what an operator is told of one letter that stays as it was."""
    return Settled(id=message_id, code=error.code, message=error.message, hint=error.hint)


def _sender_of(peers: RegistrySnapshot, old: MessageRow) -> Caller:
    record = _registered(peers, old.sender_uid, old.sender.partition("-")[2])
    stated = parse_identity(old.sender)
    runtime = stated.runtime if stated else record.default_runtime
    if runtime not in record.runtimes:
        runtime = record.default_runtime
    return Caller(Identity(runtime, record.personality), record)


def _registered(peers: RegistrySnapshot, uid: str, name: str) -> RegistryRecord:
    for record in peers:
        if record.uid == uid:
            return record
    raise PeerNotFound(
        f'"{name}" is not registered any more; message NOT delivered',
        hint="drop the letter, or write to somebody else",
    )


def _about(peers: RegistrySnapshot, peer: str | None) -> tuple[str | None, str | None]:
    """Return what a peer's messages are found by: its uid, or the name of one that is gone."""
    record = peers.get(peer) if peer is not None else None
    return (record.uid, None) if record is not None and record.uid else (None, peer)


def _view(row: MessageRow, *, body: bool = False) -> MessageView:
    return MessageView(
        id=row.id,
        at=row.accepted_at,
        accepted_ts=row.accepted_ts,
        sender=row.sender,
        recipient=_address(row),
        state=row.state,
        reason=row.reason,
        topic=row.topic,
        length=len(row.body),
        dup=row.dup,
        purged=row.purged,
        quote=one_line(row.body, QUOTE_CHARS),
        body=row.body if body else None,
    )


def _address(row: MessageRow) -> str:
    return f"{row.runtime}-{row.personality}"
