"""What the ledger stores, one frozen struct per table, and how a row becomes one.

Times are seconds since the epoch (wall clock) unless a field says otherwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from iapeer.core.states import MessageState


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the router accepts it; the recipient's identity is already fixed.

    `sender` is an address, `accepted_ts` local ISO-8601 with offset (what the reader is shown),
    `path` the entrance it came by (`mcp`, `cli`, `http`, `core`), `intelligence` the sender's,
    `pinned` says that the sender named the runtime, `key` is the caller's idempotency key.
    """

    id: str
    sender: str
    sender_uid: str
    to_uid: str
    personality: str
    runtime: str
    body: str
    accepted_ts: str
    expires_at: float
    path: str
    intelligence: str
    pinned: bool = False
    topic: str | None = None
    attachments: tuple[str, ...] = ()
    depth: int = 0
    key: str | None = None


class MessageRow(NewMessage, frozen=True, kw_only=True):
    """A stored message.

    `seq` orders all messages of this ledger by acceptance. `attempt`, `session_id` and `door`
    are those of the newest attempt (0 and empty before the first) and stay after a return, so
    that late evidence finds its message. `final` marks a landed one whose door can't prove more.
    `woke` tells that it has waited for its reader to be started. `purged` tells that the body
    was forgotten after its retention: `body` is then empty. `answered_by` is the id of the first
    message its reader sent back.
    """

    seq: int
    state: MessageState
    reason: str
    dup: bool
    attempt: int
    session_id: str
    door: str
    final: bool
    woke: bool
    purged: bool
    answered_by: str
    accepted_at: float
    changed_at: float


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a message: the state it led to, by which event (`accept` is the first)."""

    message_id: str
    at: float
    state: MessageState
    event: str
    reason: str
    door: str
    attempt: int
    session_id: str
    evidence: str


class TurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """The turn in which one attempt was seen; `turn_end` is empty while it runs."""

    message_id: str
    attempt: int
    session_id: str
    seen_at: float
    turn_end: str
    ended_at: float | None


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an idempotency key of one caller stands for."""

    caller: str
    key: str
    to: str
    body_sha256: str
    message_id: str
    created_at: float


class Waiting(NamedTuple):
    """How many messages wait for one identity."""

    uid: str
    personality: str
    runtime: str
    waiting: int


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each a purge forgot."""

    bodies: int
    messages: int
    keys: int
    sessions: int
    deaths: int


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is about to be started; `mode` says how (`fresh`, `resume`, ...).

    `token_sha256` is empty for a session that gets no token. `native_id` is the runtime's own name
    of the conversation, `transcript` the file that is followed and `read_offset` the byte up to
    which it was read; `endpoint` is the address of the runtime's own server.
    """

    id: str
    uid: str
    runtime: str
    personality: str
    token_sha256: str
    cwd: str
    socket: str
    mode: str
    started_at: float
    native_id: str = ""
    transcript: str = ""
    read_offset: int = 0
    endpoint: str = ""
    heard: bool = False
    """Whether anything was said in its conversation, so that it can be gone on with."""
    boot_id: str = ""
    """Which run of the host it was started in, empty where the system does not tell."""


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """Which processes carry a session; a start time makes a pid unique, in the caller's unit."""

    server_pid: int
    server_start: float
    pane_id: str
    pane_pid: int
    pane_start: float


class SessionRow(NewSession, frozen=True, kw_only=True):
    """A stored session; it is live until `ended_at` is set."""

    server_pid: int | None
    server_start: float | None
    pane_id: str
    pane_pid: int | None
    pane_start: float | None
    ready_at: float | None
    ended_at: float | None
    end_cause: str


class DeathRow(msgspec.Struct, frozen=True, kw_only=True):
    """One death of a session or boot of an identity."""

    uid: str
    runtime: str
    kind: str
    at: float
    detail: str


class PostmortemRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one session died of.

    `what` ended first (`program`, `server`, `own-server`, `boot`); `cause`, `confidence` and `why`
    are the verdict. `watched`: a daemon saw it. `words` are the last rows of its screen, without
    messages and secrets, empty when the screen was lost; `report` is the path of what was noted
    about the host, empty without one.
    """

    session_id: str
    uid: str
    runtime: str
    personality: str
    at: float
    what: str
    cause: str
    confidence: str
    why: str
    status: int | None = None
    signal: int | None = None
    watched: bool = True
    words: str = ""
    report: str = ""


class MarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One mark of an identity, such as `stopped`; `value` may be empty."""

    uid: str
    runtime: str
    mark: str
    set_at: float
    value: str


MESSAGE_COLUMNS = (
    "id, sender, sender_uid, to_uid, personality, runtime, body, accepted_ts, expires_at, path,"
    " intelligence, pinned, topic, attachments, depth, key, seq, state, reason, dup, attempt,"
    " session_id, door, final, woke, purged, answered_by, accepted_at, changed_at"
)
"""The order `message_row` expects."""

SESSION_COLUMNS = (
    "id, uid, runtime, personality, token_sha256, cwd, socket, mode, started_at, server_pid,"
    " server_start, pane_id, pane_pid, pane_start, native_id, transcript, read_offset, ready_at,"
    " ended_at, end_cause, endpoint, heard, boot_id"
)
"""The order `session_row` expects."""

_attachments = msgspec.json.Decoder(tuple[str, ...])


def message_row(values: tuple[Any, ...]) -> MessageRow:
    """Build a message from the columns of `MESSAGE_COLUMNS`."""
    return MessageRow(
        id=values[0],
        sender=values[1],
        sender_uid=values[2],
        to_uid=values[3],
        personality=values[4],
        runtime=values[5],
        body=values[6],
        accepted_ts=values[7],
        expires_at=values[8],
        path=values[9],
        intelligence=values[10],
        pinned=bool(values[11]),
        topic=values[12],
        attachments=_attachments.decode(values[13]),
        depth=values[14],
        key=values[15],
        seq=values[16],
        state=MessageState(values[17]),
        reason=values[18],
        dup=bool(values[19]),
        attempt=values[20],
        session_id=values[21],
        door=values[22],
        final=bool(values[23]),
        woke=bool(values[24]),
        purged=bool(values[25]),
        answered_by=values[26],
        accepted_at=values[27],
        changed_at=values[28],
    )


def session_row(values: tuple[Any, ...]) -> SessionRow:
    """Build a session from the columns of `SESSION_COLUMNS`."""
    return SessionRow(
        id=values[0],
        uid=values[1],
        runtime=values[2],
        personality=values[3],
        token_sha256=values[4],
        cwd=values[5],
        socket=values[6],
        mode=values[7],
        started_at=values[8],
        server_pid=values[9],
        server_start=values[10],
        pane_id=values[11],
        pane_pid=values[12],
        pane_start=values[13],
        native_id=values[14],
        transcript=values[15],
        read_offset=values[16],
        ready_at=values[17],
        ended_at=values[18],
        end_cause=values[19],
        endpoint=values[20],
        heard=bool(values[21]),
        boot_id=values[22],
    )


HISTORY_COLUMNS = "message_id, at, state, event, reason, door, attempt, session_id, evidence"
"""The order `history_row` expects."""


def history_row(values: tuple[Any, ...]) -> HistoryRow:
    """Build a step from the columns of `HISTORY_COLUMNS`."""
    return HistoryRow(
        message_id=values[0],
        at=values[1],
        state=MessageState(values[2]),
        event=values[3],
        reason=values[4],
        door=values[5],
        attempt=values[6],
        session_id=values[7],
        evidence=values[8],
    )
