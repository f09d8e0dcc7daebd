"""What the edges are given: the ports of the heart, bound to classes by `host/` only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from iapeer.routing.ports import Archive, Evidence, Fleet, Inbox, OwnSession, Postman, Tokens


class SessionTokens(Tokens, Protocol):
    """Tokens that also tell the session: evidence is accepted for the sender's own session only."""

    async def session_of(self, token: str) -> str | None:
        """Return the id of the live session the token was issued to, None when it is nobody's."""


@dataclass(frozen=True)
class Services:
    """The ports every edge works with; `version` is what MCP and `ping` report."""

    postman: Postman
    archive: Archive
    fleet: Fleet
    own: OwnSession
    evidence: Evidence
    inbox: Inbox
    tokens: SessionTokens
    version: str
