"""Who may be written to right now, and the one transaction that accepts a message.

The same functions serve the daemon's router and a command line while no daemon runs: everything
here takes a connection inside a transaction and values, and waits for nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from sqlite3 import Connection
from types import MappingProxyType

import msgspec

from iapeer.core.draft import Draft, validate
from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerNotFound,
    RuntimeUnknown,
    SendRefused,
)
from iapeer.core.identity import RESERVED_NAMES, Identity
from iapeer.core.ids import new_message_id
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.core.states import HoldReason
from iapeer.registry.caller import Caller
from iapeer.registry.index import Registry
from iapeer.registry.profiles import is_ephemeral
from iapeer.registry.snapshot import FIX_HINT
from iapeer.registry.units import Unit, unit_of
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions.plan import is_installed
from iapeer.storage.ledger import marks, messages, queries, upkeep
from iapeer.storage.ledger.rows import KeyRow, MessageRow, NewMessage

from . import ownmarks
from .clocktime import local_iso
from .lanes.journal import STOPPED

NOT_HELD: Mapping[str, HoldReason] = MappingProxyType({})


class Reach(msgspec.Struct, frozen=True):
    """How a recipient's runtimes can be reached, as seen just before a message is accepted.

    `live` have a session; what comes for those in `held` waits for that reason; a message for one
    in `refused` is not accepted at all.
    """

    live: Sequence[str] = ()
    held: Mapping[str, HoldReason] = msgspec.field(default_factory=dict)
    refused: Mapping[str, IapeerError] = msgspec.field(default_factory=dict)


class SendRequest(msgspec.Struct, frozen=True, dict=True):
    """One call: `path` names the entrance (`mcp`, `cli`, `http`), `key` makes it repeatable.

    `depth` counts the messages of peers that led to it; 0 for a person's own.
    """

    caller: Caller
    draft: Draft
    path: str
    key: str | None = None
    depth: int = 0

    @cached_property
    def arms(self) -> bool:
        """Whether a message tells of the sender's task: it is an ephemeral worker."""
        return is_ephemeral(self.caller.record.cwd)


class Accepted(msgspec.Struct, frozen=True):
    """A stored message; `repeated` when its key had stored it before.

    `queue_depth` counts what its identity has not been given yet, itself included.
    """

    row: MessageRow
    repeated: bool
    queue_depth: int


class Admission:
    """Refuses what only somebody else can mend; accepts the rest, to be held where need be."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        catalog: Catalog,
        environ: Mapping[str, str],
        guard: Callable[[NewMessage], None] = lambda _message: None,
    ) -> None:
        """`guard` may refuse a message as the last thing before it is stored."""
        self._guard = guard
        self._settings = settings
        self._registry = registry
        self._catalog = catalog
        self._environ = environ

    def recipient(self, draft: Draft) -> RegistryRecord:
        """Return the record of a valid draft's recipient.

        Raises InvalidInput, PeerNotFound, RuntimeUnknown, SendRefused.
        """
        validate(draft)
        if draft.to in RESERVED_NAMES:
            raise SendRefused(
                f"{draft.to} is the core itself and reads no messages",
                hint="answer the peer its notice was about",
            )
        snapshot = self._registry.snapshot(allow_stale=True)
        record = snapshot.get(draft.to)
        if record is None:
            aside = [p.message for p in snapshot.problems if p.personality == draft.to]
            raise PeerNotFound(
                f'"{draft.to}" is not in the iapeer peers index; message NOT delivered',
                hint=f"{FIX_HINT} ({aside[0]})" if aside else "see who exists: iapeer list",
            )
        if draft.runtime is not None and draft.runtime not in record.runtimes:
            raise RuntimeUnknown(
                f'runtime "{draft.runtime}" is not declared for "{record.personality}"',
                hint=f"declared: {', '.join(record.runtimes)}",
            )
        return record

    def reach(
        self,
        record: RegistryRecord,
        draft: Draft,
        live: Sequence[str],
        held: Mapping[str, HoldReason] = NOT_HELD,
    ) -> Reach:
        """Look whether the runtimes that a message may go to can be started.

        Reads files, so a sender who waits looks before the transaction; a letter or a second
        chance, which nobody waits for, may look inside it.
        """
        refused: dict[str, IapeerError] = {}
        for runtime in record.runtimes if draft.runtime is None else (draft.runtime,):
            identity = Identity(runtime, record.personality)
            try:
                self._check_startable(identity, record)
                self._check_drained(identity, record, live)
            except IapeerError as error:
                refused[runtime] = error
        return Reach(live, held, refused)

    def accept(
        self,
        conn: Connection,
        request: SendRequest,
        record: RegistryRecord,
        reach: Reach,
        now: float,
    ) -> Accepted:
        """Fix the identity, make the last refusals and store the message.

        Raises as `recipient` does, and then has changed nothing.
        """
        identity = self._identity(conn, request, record, reach.live)
        message = self._message(request, record, identity, now)
        if message.key is not None:
            known = upkeep.find_key(conn, message.sender, message.key, now)
            if known is not None:
                row = _same_message(conn, known, message)
                depth = queries.depth(conn, row.to_uid, row.runtime)
                return Accepted(row, repeated=True, queue_depth=depth)
        refusal = reach.refused.get(message.runtime)
        if refusal is not None:
            raise refusal
        depths = queries.depths(conn, message.to_uid)
        self._check_taking(conn, message, sum(depths.values()))
        self._guard(message)
        row = messages.accept(conn, message, now, reach.held.get(message.runtime))
        messages.note_answer(conn, row)
        if request.arms:
            ownmarks.arm_sender(conn, message.sender_uid, request.caller.identity.runtime, now)
        if message.key is not None:
            upkeep.remember_key(
                conn,
                message.sender,
                message.key,
                to=message.personality,
                body_sha256=body_digest(message),
                message_id=message.id,
                now=now,
            )
        depth = depths.get(row.runtime, 0) + 1
        return Accepted(row, repeated=False, queue_depth=depth)

    def _identity(
        self,
        conn: Connection,
        request: SendRequest,
        record: RegistryRecord,
        live: Sequence[str],
    ) -> Identity:
        """The named runtime, else what keeps the pair's order, else what is live."""
        sender = request.caller.identity
        runtime = request.draft.runtime
        if runtime is None and len(record.runtimes) > 1:
            runtime = queries.fixed_runtime(conn, sender.address, record.uid)
        if runtime is None or runtime not in record.runtimes:
            runtime = _live_or_default(record, live)
        identity = Identity(runtime, record.personality)
        if identity == sender:
            raise InvalidInput(f"{identity.address} cannot send to self")
        return identity

    def _message(
        self, request: SendRequest, record: RegistryRecord, identity: Identity, now: float
    ) -> NewMessage:
        caller, draft = request.caller, request.draft
        return NewMessage(
            id=new_message_id(),
            sender=caller.identity.address,
            sender_uid=caller.record.uid,
            to_uid=record.uid,
            personality=record.personality,
            runtime=identity.runtime,
            body=draft.message,
            accepted_ts=local_iso(now),
            expires_at=now + self._settings.ttl_s,
            path=request.path,
            intelligence=caller.record.intelligence,
            pinned=draft.runtime is not None,
            topic=(draft.topic or "").strip() or None,
            attachments=draft.attachments,
            depth=request.depth,
            key=request.key,
        )

    def _check_startable(self, identity: Identity, record: RegistryRecord) -> None:
        """Refuse a folder or a program that is gone; what passes by itself is held instead."""
        spec = self._catalog.get(identity.runtime)
        if not os.path.isdir(record.cwd):  # noqa: PTH112 - a Path takes three times as long
            raise SendRefused(
                f"{identity.address}: peer cwd does not exist: {record.cwd}; message NOT delivered",
                hint=f"restore the folder, or: iapeer remove {identity.personality}",
                code="cwd_gone",
            )
        if spec.kind != "service" and not is_installed(spec, self._environ, Path(record.cwd)):
            raise SendRefused(
                f"{identity.address}: the program of runtime {spec.id} "
                f"({spec.launch.argv[0]}) is not installed; message NOT delivered",
                hint="install it, or mend the runtime's manifest",
                code="binary_missing",
            )

    def _check_drained(
        self, identity: Identity, record: RegistryRecord, live: Sequence[str]
    ) -> None:
        """Refuse tasks of an ephemeral worker whose sessions nobody here starts."""
        if identity.runtime in live:
            return
        if not is_ephemeral(record.cwd):
            return
        if unit_of(self._settings.units_dir, identity.personality) != Unit.NONE:
            raise SendRefused(
                f"{identity.address} is launchd-managed; message NOT delivered",
                hint="an ephemeral worker has no unit file of its own",
                code="service_managed",
            )

    def _check_taking(self, conn: Connection, message: NewMessage, waiting: int) -> None:
        """Refuse a stopped recipient, and one for whom too many messages are waiting."""
        if marks.has_mark(conn, message.to_uid, message.runtime, STOPPED):
            raise SendRefused(
                f'"{message.personality}" ({message.runtime}) is stopped and not accepting '
                "messages; start it to resume",
                hint=f"iapeer start {message.personality}",
                code="stopped",
            )
        limit = self._settings.queue_limit
        if waiting >= limit:
            raise SendRefused(
                f'"{message.personality}" has {limit} undelivered messages',
                hint="wait until it has read some",
                code="queue_full",
            )


def body_digest(message: NewMessage) -> str:
    """Return what a repeated key is compared by: everything the reader would see."""
    seen = (message.body, message.topic, message.attachments, message.pinned and message.runtime)
    return hashlib.sha256(msgspec.json.encode(seen)).hexdigest()


def _same_message(conn: Connection, known: KeyRow, message: NewMessage) -> MessageRow:
    """Return the message a key stands for, if the repeated call means the same one."""
    row = queries.get(conn, known.message_id)
    same = (known.to, known.body_sha256) == (message.personality, body_digest(message))
    if row is None or not same:
        raise SendRefused(
            f"key {message.key!r} stands for another message ({known.message_id}) already",
            hint="use a new key for each message",
            code="key_reused",
        )
    return row


def _live_or_default(record: RegistryRecord, live: Sequence[str]) -> str:
    if not live or record.default_runtime in live:
        return record.default_runtime
    if len(live) > 1:
        raise SendRefused(
            f'"{record.personality}" is online in multiple runtimes ({", ".join(live)}) '
            "— specify runtime",
            hint="say which one: runtime",
        )
    return live[0]
