"""The seven states of a message, why one is held, and which step may follow which.

`TRANSITIONS` is the whole table; ARCHITECTURE.md prints it and a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum


class MessageState(StrEnum):
    """Where a message is; always exactly one of these."""

    ACCEPTED = "accepted"
    HELD = "held"
    IN_FLIGHT = "in_flight"
    LANDED = "landed"
    SEEN = "seen"
    FAILED = "failed"
    EXPIRED = "expired"


class HoldReason(StrEnum):
    """Why an accepted message waits; every one can change without the sender."""

    COMPOSER = "composer"
    BUSY = "busy"
    WAKING = "waking"
    BOOT_LIMIT = "boot_limit"
    SERIAL = "serial"
    STOPPED = "stopped"
    BROKEN = "broken"
    OFFLINE = "offline"
    QUOTA = "quota"
    API_ERROR = "api_error"


class Event(StrEnum):
    """What happens to a message."""

    HOLD = "hold"
    HAND_OVER = "hand_over"
    LAND = "land"
    SEE = "see"
    RETURN = "return"
    FAIL = "fail"
    EXPIRE = "expire"


class TurnEnd(StrEnum):
    """How the turn ended in which a message was seen."""

    DONE = "done"
    API_ERROR = "api_error"
    INTERRUPTED = "interrupted"
    DIED = "died"
    UNKNOWN = "unknown"


_S, _E = MessageState, Event

TRANSITIONS: dict[tuple[MessageState, Event], MessageState] = {
    (_S.ACCEPTED, _E.HOLD): _S.HELD,
    (_S.HELD, _E.HOLD): _S.HELD,
    (_S.ACCEPTED, _E.HAND_OVER): _S.IN_FLIGHT,
    (_S.HELD, _E.HAND_OVER): _S.IN_FLIGHT,
    (_S.IN_FLIGHT, _E.LAND): _S.LANDED,
    (_S.IN_FLIGHT, _E.SEE): _S.SEEN,
    (_S.LANDED, _E.SEE): _S.SEEN,
    # A late proof: handed back because the session seemed gone, then found in its record.
    (_S.ACCEPTED, _E.SEE): _S.SEEN,
    (_S.HELD, _E.SEE): _S.SEEN,
    (_S.IN_FLIGHT, _E.RETURN): _S.ACCEPTED,
    (_S.LANDED, _E.RETURN): _S.ACCEPTED,
    # A turn that died with the message unanswered gives it back once, marked.
    (_S.SEEN, _E.RETURN): _S.ACCEPTED,
    (_S.ACCEPTED, _E.FAIL): _S.FAILED,
    (_S.HELD, _E.FAIL): _S.FAILED,
    (_S.IN_FLIGHT, _E.FAIL): _S.FAILED,
    (_S.ACCEPTED, _E.EXPIRE): _S.EXPIRED,
    (_S.HELD, _E.EXPIRE): _S.EXPIRED,
}
"""(state, event) -> next state; a pair that is absent is a defect of the caller."""

FINAL = frozenset({_S.FAILED, _S.EXPIRED})
"""Nothing happens to these any more, unless an operator redelivers."""

UNDELIVERED = frozenset({_S.ACCEPTED, _S.HELD, _S.IN_FLIGHT})
"""Still our duty to hand over."""

DELIVERED = frozenset({_S.LANDED, _S.SEEN})
"""What `delivered` may be said of."""


def next_state(state: MessageState, event: Event) -> MessageState:
    """Return the state after `event`.

    Raises ValueError for a step the table does not have.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"no transition from {state} by {event}") from None
