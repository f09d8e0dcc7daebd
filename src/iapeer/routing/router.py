"""Accept a message, then wait for what becomes of it.

Everything that can be refused is refused before the ledger's commit; from then on nothing can be
lost, and cancelling the call cancels only the wait.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

import msgspec

from iapeer.core.clock import Clock
from iapeer.core.draft import Draft, validate
from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerNotFound,
    RuntimeUnknown,
    SendRefused,
    StorageError,
)
from iapeer.core.identity import RESERVED_NAMES, Identity
from iapeer.core.ids import new_message_id
from iapeer.core.outcomes import SendResult
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.core.states import FINAL, HoldReason, MessageState
from iapeer.registry.caller import Caller
from iapeer.registry.index import Registry
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions.plan import program_path
from iapeer.storage.ledger import marks, messages, queries, upkeep
from iapeer.storage.ledger.rows import MessageRow, NewMessage
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.logs import Delivery, LogFile, delivery_record

from .clocktime import local_iso
from .journal import STOPPED
from .lanes import Lanes
from .ports import Trace, TraceStep
from .presence import Phase
from .waits import Key, Waits, is_answer


@dataclass(frozen=True)
class Guarded:
    """What the router decides by."""

    settings: Settings
    clock: Clock
    ledger: Ledger
    registry: Registry
    catalog: Catalog
    environ: Mapping[str, str]


@dataclass(frozen=True)
class _Sending:
    """One call of `send`; `began` is monotonic."""

    caller: Caller
    draft: Draft
    path: str
    key: str | None
    began: float


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
        sending = _Sending(caller, draft, path, key, self._g.clock.monotonic())
        try:
            result = await self._send(sending)
        except IapeerError as error:
            self._log_line(sending, error=error.message)
            raise
        self._log_line(sending, result=result)
        return result

    async def _send(self, sending: _Sending) -> SendResult:
        caller, draft = sending.caller, sending.draft
        validate(draft)
        record = self._recipient(draft.to)
        identity = await self._identity(caller, draft, record)
        self._check_startable(identity, record)
        message = self._message(sending, record, identity)
        lane: Key = (record.uid, identity.runtime)
        with self._waits.watch(message.id, lane) as changed:
            first_id = await self._g.ledger.write(lambda c: self._commit(c, message))
            if first_id is None:
                self._lanes.work(record.uid, identity)
                live = self._lanes.phase(lane) == Phase.LIVE
                return await self._wait(message.id, changed, live=live)
        with self._waits.watch(first_id, lane) as changed:
            result = await self._wait(first_id, changed, live=True)
        return msgspec.structs.replace(result, repeated=True)

    async def trace(self, message_id: str) -> Trace:
        """Return the way of one message. Raises PeerNotFound (`unknown_message`)."""

        def both(conn: Connection) -> tuple[MessageRow | None, list[TraceStep]]:
            steps = [
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
            ]
            return queries.get(conn, message_id), steps

        row, steps = await self._g.ledger.read(both)
        if row is None:
            raise PeerNotFound(f"no message {message_id!r} in the ledger", code="unknown_message")
        return Trace(
            id=row.id,
            sender=row.sender,
            recipient=f"{row.runtime}-{row.personality}",
            state=row.state,
            reason=row.reason,
            topic=row.topic,
            length=len(row.body),
            dup=row.dup,
            accepted_ts=row.accepted_ts,
            steps=tuple(steps),
        )

    def _recipient(self, personality: str) -> RegistryRecord:
        if personality in RESERVED_NAMES:
            raise SendRefused(
                f"{personality} is the core itself and reads no messages",
                hint="answer the peer its notice was about",
            )
        record = self._g.registry.snapshot(allow_stale=True).get(personality)
        if record is None:
            raise PeerNotFound(
                f'"{personality}" is not in the iapeer peers index; message NOT delivered',
                hint="see who exists: iapeer list",
            )
        return record

    async def _identity(self, caller: Caller, draft: Draft, record: RegistryRecord) -> Identity:
        """Fix the recipient's identity: named, then what keeps the order, then what is live."""
        runtime = draft.runtime
        if runtime is not None and runtime not in record.runtimes:
            raise RuntimeUnknown(
                f'runtime "{runtime}" is not declared for "{record.personality}"',
                hint=f"declared: {', '.join(record.runtimes)}",
            )
        if runtime is None:
            sender = caller.identity.address
            runtime = await self._g.ledger.read(
                lambda c: queries.fixed_runtime(c, sender, record.uid)
            )
        if runtime is None or runtime not in record.runtimes:
            runtime = self._live_or_default(record)
        identity = Identity(runtime=runtime, personality=record.personality)
        if identity == caller.identity:
            raise InvalidInput(f"{identity.address} cannot send to self")
        return identity

    def _live_or_default(self, record: RegistryRecord) -> str:
        live = [
            runtime
            for runtime in record.runtimes
            if self._lanes.phase((record.uid, runtime)) == Phase.LIVE
        ]
        if not live or record.default_runtime in live:
            return record.default_runtime
        if len(live) > 1:
            raise SendRefused(
                f'"{record.personality}" is online in multiple runtimes ({", ".join(live)}) '
                "— specify runtime",
                hint="say which one: runtime",
            )
        return live[0]

    def _check_startable(self, identity: Identity, record: RegistryRecord) -> None:
        """Refuse what only somebody else can mend; what passes by itself is held instead."""
        spec = self._g.catalog.get(identity.runtime)
        cwd = Path(record.cwd)
        if not cwd.is_dir():
            raise SendRefused(
                f"{identity.address}: peer cwd does not exist: {cwd}; message NOT delivered",
                hint=f"restore the folder, or: iapeer remove {identity.personality}",
                code="cwd_gone",
            )
        if spec.kind != "service" and program_path(spec, self._g.environ, cwd) is None:
            raise SendRefused(
                f"{identity.address}: the program of runtime {spec.id} "
                f"({spec.launch.argv[0]}) is not installed; message NOT delivered",
                hint="install it, or mend the runtime's manifest",
                code="binary_missing",
            )

    def _message(self, sending: _Sending, record: RegistryRecord, identity: Identity) -> NewMessage:
        caller, draft = sending.caller, sending.draft
        now = self._g.clock.now()
        topic = (draft.topic or "").strip() or None
        return NewMessage(
            id=new_message_id(),
            sender=caller.identity.address,
            sender_uid=caller.record.uid,
            to_uid=record.uid,
            personality=record.personality,
            runtime=identity.runtime,
            body=draft.message,
            accepted_ts=local_iso(now),
            expires_at=now + self._g.settings.ttl_s,
            path=sending.path,
            intelligence=caller.record.intelligence,
            pinned=draft.runtime is not None,
            topic=topic,
            attachments=draft.attachments,
            key=sending.key,
        )

    def _commit(self, conn: Connection, message: NewMessage) -> str | None:
        """The last refusals and the acceptance, in one transaction.

        Returns the id of the message a repeated key stands for; then nothing was accepted.
        """
        now = self._g.clock.now()
        digest = body_digest(message)
        if message.key is not None:
            known = upkeep.find_key(conn, message.sender, message.key, now)
            if known is not None:
                if (known.to, known.body_sha256) == (message.personality, digest):
                    return known.message_id
                raise SendRefused(
                    f"key {message.key!r} stands for another message ({known.message_id}) already",
                    hint="use a new key for each message",
                    code="key_reused",
                )
        if marks.has_mark(conn, message.to_uid, message.runtime, STOPPED):
            raise SendRefused(
                f'"{message.personality}" ({message.runtime}) is stopped and not accepting '
                "messages; start it to resume",
                hint=f"iapeer start {message.personality}",
                code="stopped",
            )
        if queries.depth_of_uid(conn, message.to_uid) >= self._g.settings.queue_limit:
            raise SendRefused(
                f'"{message.personality}" has {self._g.settings.queue_limit} undelivered messages',
                hint="wait until it has read some",
                code="queue_full",
            )
        messages.accept(conn, message, now)
        if message.key is not None:
            upkeep.remember_key(
                conn,
                message.sender,
                message.key,
                to=message.personality,
                body_sha256=digest,
                message_id=message.id,
                now=now,
            )
        return None

    async def _wait(self, message_id: str, changed: asyncio.Event, *, live: bool) -> SendResult:
        """Return at the first of: landed, refused or failed, a hold but `waking`, the limit."""
        settings, clock = self._g.settings, self._g.clock
        began, woke = clock.monotonic(), False
        while True:
            changed.clear()
            row = await self._g.ledger.read(lambda c: queries.get(c, message_id))
            if row is None:
                raise StorageError(f"message {message_id} is not in the ledger any more")
            waking = row.state == MessageState.HELD and row.reason == HoldReason.WAKING
            woke = woke or row.woke
            if is_answer(row.state, row.reason):
                break
            limit = settings.wait_waking_s if waking or woke or not live else settings.wait_live_s
            left = limit - (clock.monotonic() - began)
            if left <= 0:
                break
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                continue
        if row.state in FINAL:
            raise SendRefused(
                f"{row.runtime}-{row.personality}: message {row.id} {row.state}: {row.reason}",
                code=row.state,
            )
        depth = await self._g.ledger.read(lambda c: queries.depth(c, row.to_uid, row.runtime))
        return SendResult(
            message_id=row.id,
            personality=row.personality,
            runtime=row.runtime,
            state=row.state,
            ts=row.accepted_ts,
            reason=row.reason,
            woke=woke,
            queue_depth=depth,
        )

    def _log_line(
        self, sending: _Sending, *, result: SendResult | None = None, error: str = ""
    ) -> None:
        caller, draft, path = sending.caller, sending.draft, sending.path
        queued = result is not None and not result.delivered
        self._log.append(
            delivery_record(
                self._g.clock.now(),
                Delivery(
                    caller=caller.identity.address,
                    to=draft.to,
                    ok=result is not None,
                    elapsed_ms=round((self._g.clock.monotonic() - sending.began) * 1000),
                    length=len(draft.message),
                    attachments=len(draft.attachments),
                    runtime=draft.runtime,
                    via=f"{result.runtime}-{result.personality}" if result else None,
                    woke=result.woke if result else False,
                    queued=queued,
                    queue_kind=result.reason or None if result and queued else None,
                    queue_depth=result.queue_depth if result and queued else None,
                    topic=draft.topic,
                    error=error or None,
                    path="cli" if path == "cli" else None,
                    message_id=result.message_id if result else None,
                    state=result.state.value if result else None,
                ),
            )
        )


def body_digest(message: NewMessage) -> str:
    """Return what a repeated key is compared by: everything the reader would see."""
    seen = (message.body, message.topic, message.attachments, message.pinned and message.runtime)
    return hashlib.sha256(msgspec.json.encode(seen)).hexdigest()
