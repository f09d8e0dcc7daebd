"""The members of opencode's records that are read here; all others are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One event of the stream."""

    type: str
    properties: msgspec.Raw = msgspec.Raw(b"{}")


class ErrorData(msgspec.Struct, frozen=True):
    """What an error is about; `status_code` is the vendor's, where one answered."""

    message: Any = ""
    status_code: int | None = msgspec.field(default=None, name="statusCode")


class Error(msgspec.Struct, frozen=True):
    """Why a turn ended early: `APIError`, `MessageAbortedError`, `ProviderAuthError`, ..."""

    name: str = ""
    data: ErrorData = ErrorData()


class Times(msgspec.Struct, frozen=True):
    """Milliseconds since the epoch."""

    created: float = 0.0
    completed: float | None = None


class Model(msgspec.Struct, frozen=True):
    """Which model a person's message is for."""

    provider_id: str = msgspec.field(default="", name="providerID")
    model_id: str = msgspec.field(default="", name="modelID")


class Info(msgspec.Struct, frozen=True):
    """One message: a person's or ours (`user`), or one answer of the model (`assistant`).

    An answer's `parent_id` is the newest message the model was given. `summary` of an answer is
    true when it shortens the context; a user's message has an object there.
    """

    id: str
    role: str
    session_id: str = msgspec.field(name="sessionID")
    parent_id: str | None = msgspec.field(default=None, name="parentID")
    time: Times = Times()
    finish: str | None = None
    error: Error | None = None
    summary: Any = None
    model: Model | None = None

    @property
    def is_summary(self) -> bool:
        """Whether this answer shortens the context instead of answering anybody."""
        return self.summary is True

    @property
    def is_over(self) -> bool:
        """Whether an answer has come to its end, good or bad."""
        return self.time.completed is not None


class Part(msgspec.Struct, frozen=True):
    """One part of a message; the server marks text that nobody typed as `synthetic`."""

    type: str
    message_id: str = msgspec.field(default="", name="messageID")
    session_id: str = msgspec.field(default="", name="sessionID")
    text: str = ""
    synthetic: bool = False


class Stored(msgspec.Struct, frozen=True):
    """One message as the server keeps it."""

    info: Info
    parts: tuple[Part, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """`idle`, `busy`, or `retry`: it asks again at `next` (milliseconds since the epoch)."""

    type: str
    attempt: int = 0
    message: str = ""
    next: float = 0.0


class Session(msgspec.Struct, frozen=True):
    """One conversation; a subagent's has a parent."""

    id: str
    parent_id: str | None = msgspec.field(default=None, name="parentID")


class MessageTold(msgspec.Struct, frozen=True):
    """`message.updated`."""

    info: Info


class PartTold(msgspec.Struct, frozen=True):
    """`message.part.updated`."""

    part: Part


class MessageGone(msgspec.Struct, frozen=True):
    """`message.removed`."""

    session_id: str = msgspec.field(name="sessionID")
    message_id: str = msgspec.field(name="messageID")


class StatusTold(msgspec.Struct, frozen=True):
    """`session.status`."""

    session_id: str = msgspec.field(name="sessionID")
    status: Status


class ErrorTold(msgspec.Struct, frozen=True):
    """`session.error`."""

    session_id: str = msgspec.field(default="", name="sessionID")
    error: Error = Error()


class IdleTold(msgspec.Struct, frozen=True):
    """`session.idle`."""

    session_id: str = msgspec.field(name="sessionID")


class CompactedTold(msgspec.Struct, frozen=True):
    """`session.compacted`."""

    session_id: str = msgspec.field(name="sessionID")
