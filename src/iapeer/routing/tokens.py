"""Whose token is it: sessions by the SHA-256 of their token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from iapeer.core.identity import Identity
from iapeer.core.ids import token_digest
from iapeer.core.states import TurnEnd
from iapeer.registry.caller import Caller, resolve_caller
from iapeer.registry.index import Registry
from iapeer.sessions.evidence import read_hook
from iapeer.sessions.model import TmuxSession
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.ledger.store import Ledger

from .lanes.letters import Observed
from .lanes.pool import Lanes

REASON_S = 0.5
"""For the word that says why nothing runs any more, after the one that says so (measured: Qwen Code
0.15.10 on a busy machine tells both within 0.3 s, and 1 of 27 pairs came the wrong way round)."""


class SessionTokens:
    """Resolves tokens and addresses to callers; the registry is asked each time.

    Whose token it is, is asked of the ledger once for each live session: as long as its lane holds
    the session, the row is not ended.
    """

    def __init__(self, ledger: Ledger, registry: Registry, lanes: Lanes) -> None:
        self._ledger = ledger
        self._registry = registry
        self._lanes = lanes
        self._known: dict[str, SessionRow] = {}

    async def caller_of(self, token: str) -> Caller | None:
        """Return whose live session holds the token; None for nobody's."""
        row = await self._row(token)
        if row is None:
            return None
        record = self._registry.snapshot(allow_stale=True).get(row.personality)
        # A namesake of a removed peer inherits nothing, its tokens least of all.
        if record is None or record.uid != row.uid:
            return None
        return Caller(identity=Identity(row.runtime, row.personality), record=record)

    async def session_of(self, token: str) -> str | None:
        """Return the id of the live session the token was issued to."""
        row = await self._row(token)
        return row.id if row else None

    async def registered(self, address: str) -> Caller:
        """Return the caller of a registered address. Raises CallerError."""
        return resolve_caller(address, self._registry.snapshot(allow_stale=True))

    async def _row(self, token: str) -> SessionRow | None:
        digest = token_digest(token)
        known = self._known.get(digest)
        if known is not None and self._lanes.holds(known.id):
            return known
        self._known = {d: row for d, row in self._known.items() if self._lanes.holds(row.id)}
        row = await self._ledger.read(lambda c: rows.by_token(c, digest))
        if row is not None:
            self._known[digest] = row
        return row


class HookEvidence:
    """Facts that a session's prompt hook reports."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    async def hook_event(self, session_id: str, event: Mapping[str, object]) -> int:
        """Take what one event proves about that session; one its manifest does not name is none."""
        lane = self._lanes.of_session(session_id)
        session = lane.session if lane else None
        if lane is None or not isinstance(session, TmuxSession) or session.id != session_id:
            return 0
        fact = read_hook(event, session.spec.evidence)
        if fact is None:
            return 0
        if fact.status == TurnEnd.INTERRUPTED and fact.stamp is not None:
            await asyncio.sleep(REASON_S)
        if fact.kind == "user" and fact.at is None:
            fact = msgspec.structs.replace(fact, at=lane.services.clock.now())
        lane.observe(Observed(session_id, (fact,)))
        return len(fact.ids)
