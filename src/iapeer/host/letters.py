"""Messages while no daemon runs: accepting, listing and settling them on short connections.

The functions are the daemon's own; what differs is that nobody waits for a delivery. The daemon
that is started next, or that is just starting, finds everything in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from sqlite3 import Connection
from typing import TypeVar

import msgspec

from iapeer.core import env
from iapeer.core.clock import SystemClock
from iapeer.core.draft import Draft
from iapeer.core.errors import CallerError, IapeerError, SendRefused, StorageError, Unauthorized
from iapeer.core.identity import Identity
from iapeer.core.ids import token_digest
from iapeer.core.outcomes import SendResult
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.core.states import FINAL
from iapeer.core.text import one_line
from iapeer.registry.caller import Caller, resolve_caller
from iapeer.routing.admission import Accepted, Admission, SendRequest
from iapeer.routing.archive import Reviver, find, find_dead, refused, story
from iapeer.routing.ports import MessageQuery, MessageView, Settled, Trace
from iapeer.routing.sendlog import Outcome, delivery_line
from iapeer.runtimes.catalog import Catalog
from iapeer.sessions.process import is_alive
from iapeer.storage.faults import fault
from iapeer.storage.ledger import deadletters
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.logs import LogFile
from iapeer.storage.paths import Paths
from iapeer.storage.pokes import poke

from .common import check_owner, open_registry

_T = TypeVar("_T")

PATH = "cli"
"""The only entrance that is open while no daemon runs."""


class OfflineSend(msgspec.Struct, frozen=True):
    """One call of `send`: `sender` is an address, empty where the session's token says it."""

    draft: Draft
    sender: str = ""
    key: str | None = None


class OfflineHouse:
    """One root, without its daemon. Raises IapeerError (`foreign_account`) for another account's.

    Every method opens what it needs and closes it; nothing is held between two calls.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        check_owner(settings.root)
        self._settings = settings
        self._environ = environ
        self._paths = Paths(settings.root)
        self._registry = open_registry(self._paths, environ)
        self._clock = SystemClock()

    def send(self, sending: OfflineSend) -> SendResult:
        """Accept a message as the router does, durably, and tell a daemon that is just starting.

        Raises InvalidInput, CallerError, PeerNotFound, SendRefused, RuntimeUnknown or
        StorageError; then nothing was accepted.
        """
        began = self._clock.monotonic()
        request = SendRequest(self._caller(sending), sending.draft, PATH, sending.key)
        try:
            result = self._accept(request)
        except IapeerError as error:
            self._log_send(Outcome(request, self._clock.monotonic() - began, error=error.message))
            raise
        fault("offline.poke")
        poke(self._paths.pokes)
        self._log_send(Outcome(request, self._clock.monotonic() - began, result))
        return result

    def messages(self, query: MessageQuery) -> list[MessageView]:
        """Return what matches, newest first. Raises StorageError."""
        peers = self._registry.snapshot(allow_stale=True)
        return self._look(lambda c: find(c, peers, query), [])

    def trace(self, message_id: str) -> Trace:
        """Return the way of one message. Raises PeerNotFound, StorageError."""
        with self._reading() as conn:
            return story(conn, message_id)

    def dead_letters(self, peer: str | None, limit: int) -> list[MessageView]:
        """Return the dead letters, oldest first. Raises StorageError."""
        peers = self._registry.snapshot(allow_stale=True)
        return self._look(lambda c: find_dead(c, peers, peer, limit), [])

    def redeliver(self, ids: Sequence[str]) -> list[Settled]:
        """Send each dead letter again; one that is refused spares the others."""
        admission = self._admission()
        results = []
        for message_id in ids:
            try:
                with self._writing() as conn:
                    reviver = Reviver(admission, self._registry, _live_in(conn), PATH)
                    done = reviver.redeliver(conn, message_id, self._clock.now())
            except IapeerError as error:
                results.append(refused(message_id, error))
            else:
                self._log(done.log_line(self._clock.now()))
                results.append(Settled(id=message_id, new_id=done.new.id))
        poke(self._paths.pokes)
        return results

    def drop(self, ids: Sequence[str]) -> list[Settled]:
        """Take dead letters off the list; one that is refused spares the others."""
        results = []
        for message_id in ids:
            try:
                with self._writing() as conn:
                    deadletters.drop(conn, message_id, self._clock.now())
            except IapeerError as error:
                results.append(refused(message_id, error))
            else:
                results.append(Settled(id=message_id))
        return results

    def _caller(self, sending: OfflineSend) -> Caller:
        """Return who speaks: a session's token decides, else the account may name a peer.

        Raises Unauthorized, CallerError, StorageError.
        """
        token = self._environ.get(env.SESSION_TOKEN, "").strip()
        peers = self._registry.snapshot(allow_stale=True)
        if not token:
            return resolve_caller(sending.sender, peers)
        row = self._look(lambda c: rows.by_token(c, token_digest(token)), None)
        record = peers.get(row.personality) if row else None
        if row is None or record is None or record.uid != row.uid or not _runs(row):
            raise Unauthorized(
                "unknown session token: the session it was issued to has ended",
                hint=f"outside a session unset {env.SESSION_TOKEN} and use --from",
            )
        caller = Caller(Identity(row.runtime, row.personality), record)
        if sending.sender and sending.sender != caller.address:
            raise CallerError(
                f"the session token belongs to {caller.address}, the call says "
                f"{one_line(sending.sender, 80)!r}",
                hint="leave the sender out: the token decides",
            )
        return caller

    def _accept(self, request: SendRequest) -> SendResult:
        admission = self._admission()
        record = admission.recipient(request.draft)
        now = self._clock.now()
        with self._writing() as conn:
            reach = admission.reach(record, request.draft, _live_in(conn)(record))
            accepted = admission.accept(conn, request, record, reach, now)
        return _result(accepted)

    def _admission(self) -> Admission:
        # No guards: they count in a daemon's memory, and a person at a keyboard needs none.
        catalog = Catalog.load(self._settings.runtimes_dir)
        return Admission(self._settings, self._registry, catalog, self._environ)

    def _writing(self) -> AbstractContextManager[Connection]:
        return offline(self._paths.ledger, self._settings.busy_timeout_s)

    def _reading(self) -> AbstractContextManager[Connection]:
        return offline_read(self._paths.ledger, self._settings.busy_timeout_s)

    def _look(self, fn: Callable[[Connection], _T], nothing: _T) -> _T:
        """Read from the ledger; `nothing` where there is none yet. Raises StorageError."""
        try:
            with self._reading() as conn:
                return fn(conn)
        except StorageError as error:
            if error.code != "no_ledger":
                raise
            return nothing

    def _log_send(self, outcome: Outcome) -> None:
        self._log(delivery_line(self._clock.now(), outcome))

    def _log(self, line: str) -> None:
        log = LogFile(
            self._paths.delivery_log, self._settings.log_max_bytes, self._settings.log_keep
        )
        log.append(line)


def _result(accepted: Accepted) -> SendResult:
    row = accepted.row
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
        repeated=accepted.repeated,
        queue_depth=accepted.queue_depth,
    )


def _live_in(conn: Connection) -> Callable[[RegistryRecord], list[str]]:
    """Return what tells a peer's runtimes whose session has outlived the daemon."""

    def live(record: RegistryRecord) -> list[str]:
        found = [rows.live_of(conn, record.uid, runtime) for runtime in record.runtimes]
        return [row.runtime for row in found if row is not None and _runs(row)]

    return live


def _runs(row: SessionRow) -> bool:
    """Tell whether a session that has not ended by the ledger still has its process."""
    if row.server_pid is None or row.server_start is None:
        return True
    return is_alive(row.server_pid, int(row.server_start))
