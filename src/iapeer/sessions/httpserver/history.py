"""Where a message is in the history that the server keeps."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from .frames import Info, Stored
from .ids import message_id_of

_UNFINISHED = frozenset({"", "tool-calls", "unknown"})


class Found(StrEnum):
    """Where a message is on the other side."""

    ABSENT = "absent"
    WAITING = "waiting"
    """Stored; no answer was begun after it."""
    BEGUN = "begun"
    """The model is given it, or was; the server is ahead of its events, which will tell so."""
    READ = "read"
    """The model was given it, and its turn runs or came to its end."""
    CUT = "cut"
    """The model was given it, but the turn was cut off and does not run."""


def user_ids(messages: Sequence[Stored]) -> list[str]:
    """Return the native ids of what was asked, oldest first."""
    return [stored.info.id for stored in messages if stored.info.role == "user"]


def attempts_at(messages: Sequence[Stored], message_id: str) -> list[str]:
    """Return the native ids under which one of our messages was handed over, oldest first."""
    return [native for native in user_ids(messages) if message_id_of(native) == message_id]


def answers_to(messages: Sequence[Stored], native: str) -> list[Info]:
    """Return the answers of the model to a message, or to it and later ones together."""
    return [
        stored.info
        for stored in messages
        if stored.info.role != "user"
        and not stored.info.is_summary
        and (stored.info.parent_id or "") >= native
    ]


def is_end(answer: Info) -> bool:
    """Tell whether a turn came to a good end with this answer."""
    return (answer.finish or "") not in _UNFINISHED


def whereabouts(messages: Sequence[Stored], natives: Sequence[str], *, busy: bool) -> Found:
    """Return what became of the newest of these messages; `busy` is what the server says."""
    if not natives:
        return Found.ABSENT
    answers = answers_to(messages, natives[-1])
    if not answers:
        return Found.WAITING
    return Found.READ if busy or any(map(is_end, answers)) else Found.CUT
