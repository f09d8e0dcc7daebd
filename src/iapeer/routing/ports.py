"""How the edges reach the heart, and how the heart reaches up: protocols and the values they carry.

`host/` is the only place that binds these to classes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from iapeer.core.draft import Draft
from iapeer.core.outcomes import SendResult
from iapeer.core.states import MessageState
from iapeer.registry.caller import Caller


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `list`: a peer and what each of its runtimes is doing.

    `statuses` maps runtime id to `live`, `asleep`, `stopped`, `booting` or `broken`.
    `last_active_runtime` is the runtime of its newest session, None when it never had one.
    """

    personality: str
    default_runtime: str
    intelligence: str
    description: str
    cwd: str
    runtimes: tuple[str, ...]
    statuses: dict[str, str]
    undelivered: int = 0
    last_active_runtime: str | None = None


class TraceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a message's way. `at` is seconds since the epoch."""

    at: float
    state: str
    event: str
    reason: str = ""
    door: str = ""
    attempt: int = 0
    evidence: str = ""


class TraceTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The turn that an attempt was seen in; `end` is empty while it runs, or never ended."""

    attempt: int
    seen_at: float
    end: str
    ended_at: float | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A message without its body, and every step it took so far.

    `answered_by` is the id of the first message its reader sent back. `altered` characters of the
    body were changed or dropped for a terminal.
    """

    id: str
    sender: str
    recipient: str
    state: str
    reason: str
    topic: str | None
    length: int
    dup: bool
    accepted_ts: str
    steps: tuple[TraceStep, ...]
    turns: tuple[TraceTurn, ...] = ()
    answered_by: str = ""
    altered: int = 0


class MessageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages to list; `peer` is a name, `grep` a part of the body or the topic."""

    peer: str | None = None
    state: MessageState | None = None
    grep: str | None = None
    limit: int = 50
    bodies: bool = False


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list of messages; the whole `body` only where it was asked for.

    `at` is seconds since the epoch, `quote` the beginning of the body on one line.
    """

    id: str
    at: float
    accepted_ts: str
    sender: str
    recipient: str
    state: str
    reason: str
    topic: str | None
    length: int
    dup: bool
    purged: bool
    quote: str
    body: str | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about one dead letter: `new_id` carries it on; `code` says why nothing was."""

    id: str
    new_id: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""


class AttachPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a human attaches: run `tmux -S <socket> attach -t =<session>`."""

    identity: str
    socket: str
    session: str
    woke: bool


class SelfAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a session that said something about itself is told: who it is, and what it is.

    `ephemeral` tells whether each of its tasks gets a session of its own; only then does "done" do
    anything.
    """

    identity: str
    ephemeral: bool


class InboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What an inbox stream carries; `dup` is `maybe` when it may have been shown before."""

    id: str
    sender: str
    intelligence: str
    body: str
    topic: str | None = None
    attachments: tuple[str, ...] = ()
    ts: str = ""
    dup: str = ""


class Postman(Protocol):
    """Accepts messages; the one thing every entrance calls."""

    async def send(
        self, caller: Caller, draft: Draft, *, path: str, key: str | None = None
    ) -> SendResult:
        """Accept, then wait as long as the waiting rule says.

        `path` names the entrance (`mcp`, `cli`, `http`). Raises InvalidInput, PeerNotFound,
        SendRefused, RuntimeUnknown or StorageError; then nothing was accepted.
        """

    async def trace(self, message_id: str) -> Trace:
        """Return the way of one message. Raises PeerNotFound when there is none of that id."""


class Fleet(Protocol):
    """What an operator may ask of the daemon about peers and their sessions."""

    async def peers(self) -> list[PeerView]:
        """Return every registered peer, sorted by name."""

    async def stop(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Stop sessions and refuse further messages; returns runtime -> action."""

    async def start(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Allow messages again and forget failed boots; returns runtime -> action."""

    async def interrupt(self, personality: str, runtime: str | None) -> str:
        """Stop the running turn; returns the identity. Raises ControlRefused."""

    async def compact(self, personality: str, runtime: str | None) -> tuple[str, bool]:
        """Shorten the context, resuming a parked session; returns identity and whether it was.

        Raises ControlRefused, LaunchFailed.
        """

    async def wake(self, personality: str, runtime: str | None) -> AttachPoint:
        """Bring one session up (or find it live) for a human.

        Without a runtime: the live one, else the one that was used last, else the default. Raises
        LaunchFailed, SendRefused when stopped, ControlRefused (`service_managed`).
        """

    async def new(self, personality: str, runtime: str | None) -> str:
        """End what runs, start a fresh session and return its identity when it is ready.

        A stopped peer is started. Raises LaunchFailed, ControlRefused (`service_managed`,
        `foreign_unit`).
        """

    async def launch(self, personality: str, runtime: str | None) -> AttachPoint:
        """Start a fresh session for a person in its folder; one that lives is left as it is.

        Raises as `wake` does.
        """

    async def refresh(self, personality: str, runtime: str | None) -> dict[str, str]:
        """Make the next session of agent runtimes a fresh one; returns runtime -> action.

        Actions are `refresh-armed` and `skipped-non-agentic`.
        """

    async def remove(self, personality: str, *, force: bool) -> dict[str, Any]:
        """End, purge and unregister a peer. Raises PeerLive without `force`."""

    async def rename(self, old: str, new: str) -> dict[str, Any]:
        """Rename a sleeping peer everywhere. Raises PeerLive, PeerExists, PeerNotFound."""

    async def status(self) -> dict[str, Any]:
        """Return counts and versions for `status`: pid, version, live, undelivered, problems."""


class OwnSession(Protocol):
    """What a session may say about itself, by its own id; an id that has ended is nobody's."""

    async def done(self, session_id: str) -> SelfAnswer:
        """Its task is finished: an ephemeral worker ends after its quiet window. Wakes nobody.

        Raises Unauthorized for a session that has ended.
        """

    async def fresh(self, session_id: str) -> SelfAnswer:
        """End it and start a fresh one on the peer's default runtime; answers before its end.

        Raises Unauthorized for a session that has ended, ControlRefused (`service_managed`).
        """


class Archive(Protocol):
    """What an operator may ask and do about messages."""

    async def messages(self, query: MessageQuery) -> list[MessageView]:
        """Return what matches, newest first."""

    async def dead_letters(self, peer: str | None, limit: int) -> list[MessageView]:
        """Return failed and expired messages nobody has seen to, in order of acceptance."""

    async def redeliver(self, ids: Sequence[str], path: str) -> list[Settled]:
        """Send each dead letter again as a new message; one that is refused spares the others.

        `path` names the entrance, as for `send`.
        """

    async def drop(self, ids: Sequence[str]) -> list[Settled]:
        """Take dead letters off the list; their rows and histories stay."""


class Evidence(Protocol):
    """Facts a session's own hooks report about itself."""

    async def hook_event(self, session_id: str, event: Mapping[str, object]) -> int:
        """Take one event of the session's hook as evidence; returns how many ids were in it."""


class Inbox(Protocol):
    """The `inbox` door as the edge sees it."""

    def open(self, caller: Caller) -> AsyncIterator[InboxMessage]:
        """Stream this identity's messages until the consumer goes away.

        A second stream of the same identity ends the first. Raises SendRefused for a runtime
        that has no inbox door.
        """

    async def ack(self, caller: Caller, message_id: str) -> bool:
        """Take the reader's word that it has the message; False when it was not in flight."""


class Tokens(Protocol):
    """Who a session token belongs to."""

    async def caller_of(self, token: str) -> Caller | None:
        """Return the identity of a live session's token, None when it is nobody's."""

    async def registered(self, address: str) -> Caller:
        """Return the caller of a registered address. Raises CallerError."""
