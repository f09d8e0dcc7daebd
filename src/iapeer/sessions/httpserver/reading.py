"""What opencode's events and messages prove: pure reading into facts.

A stored message is only `enqueue`: the server keeps it, the model has not seen it. It is `user`
with the first answer that was begun after it, for an answer's parent is the newest message of the
history the model was given. A message that waits behind a running turn is taken up without
`session.idle` in between, so an answer with another parent ends the turn before it.

A user message is ours when its id holds one of our markers; nothing is ever told by a text.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from iapeer.core.states import TurnEnd
from iapeer.sessions.evidence import WORDS_MAX, Fact

from .frames import (
    CompactedTold,
    Error,
    ErrorTold,
    Event,
    IdleTold,
    Info,
    MessageGone,
    MessageTold,
    Part,
    PartTold,
    Status,
    StatusTold,
    Stored,
)
from .ids import message_id_of

RETRIES = 3
"""Times the server may ask the vendor again before we end the turn; it would never give up."""
FAR_S = 20.0
"""A wait for the next try that is longer ends the turn at once; it is then the vendor's own."""
STALE_S = 60.0
"""An API error that is found this long after it happened says nothing about now."""
KEEP = 1_000
"""Messages remembered so as not to be told twice; a look back holds 50."""

_Told: TypeAlias = (
    MessageTold | PartTold | MessageGone | StatusTold | ErrorTold | IdleTold | CompactedTold
)

_ABORTED = "MessageAbortedError"
_NAMES = {
    "ProviderAuthError": "authentication_failed",
    "MessageOutputLengthError": "max_output_tokens",
    "ContextOverflowError": "context_window",
}
_STATUSES = {
    400: "invalid_request",
    401: "authentication_failed",
    402: "billing_error",
    403: "authentication_failed",
    404: "invalid_request",
    413: "context_window",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}
_WORDS = (
    (re.compile(r"overload|capacity", re.IGNORECASE), "overloaded"),
    (re.compile(r"server error|unavailable|gateway|timed? ?out", re.IGNORECASE), "server_error"),
)


class _Failure(msgspec.Struct, frozen=True):
    """How a turn ended that did not end well."""

    status: TurnEnd
    error: str = ""
    words: str = ""
    reset_at: float | None = None


class Reading(msgspec.Struct):
    """What came of one event.

    `give_up`: the running turn only waits for the vendor and is to be aborted. `elsewhere`: a
    message was written in that other session.
    """

    facts: list[Fact] = msgspec.field(default_factory=list)
    give_up: bool = False
    elsewhere: str = ""


def category_of(error: Error) -> str:
    """Return one word for why a turn failed, `unknown` when its record does not tell."""
    if error.name in _NAMES:
        return _NAMES[error.name]
    status = error.data.status_code
    if status is None:
        return "unknown"
    return _STATUSES.get(status, "server_error" if status >= 500 else "unknown")


def category_of_wait(words: str) -> str:
    """Return the same for a wait, of which the server tells only words."""
    return next((word for pattern, word in _WORDS if pattern.search(words)), "rate_limit")


class Reader:
    """Turns what happens in one session into facts, each once, in order.

    `busy` is whether something runs in it, as far as was told.
    """

    def __init__(self, session_id: str) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self.move(session_id)

    def move(self, session_id: str) -> None:
        """Read this session from now on; messages that were seen stay known."""
        self.session_id = session_id
        self.busy = False
        self._waiting: OrderedDict[str, str] = OrderedDict()
        self._untold: OrderedDict[str, None] = OrderedDict()
        self._open = False
        self._parent = ""
        self._cut = False
        self._failure: _Failure | None = None
        self._told: _Failure | None = None
        self._over_at = 0.0

    @property
    def waiting(self) -> tuple[str, ...]:
        """Our messages (native ids) that are stored and not in any turn yet, oldest first."""
        return tuple(native for native, ours in self._waiting.items() if ours)

    def has(self, native_id: str) -> bool:
        """Whether this message is known to be stored."""
        return native_id in self._known

    def expect(self, native_id: str) -> None:
        """Tell again when the model is given this message: its turn is to be run anew."""
        ours = message_id_of(native_id)
        if ours:
            self._waiting[native_id] = ours

    def read(self, event: Event, now: float) -> Reading:
        """Read one event; what is of another shape than was measured tells nothing."""
        kind = _KINDS.get(event.type)
        if kind is None:
            return Reading()
        try:
            told = msgspec.json.decode(event.properties, type=kind)
        except msgspec.DecodeError:
            return Reading()
        match told:
            case MessageTold():
                return self._message(told.info)
            case PartTold():
                self._see_part(told.part)
            case MessageGone():
                self._waiting.pop(told.message_id, None)
            case _ if told.session_id == self.session_id:
                return self._session_told(told, now)
        return Reading()

    def recover(self, messages: Iterable[Stored], now: float, *, busy: bool) -> list[Fact]:
        """Read what the server keeps, after a time in which its events were not heard."""
        facts = []
        for stored in messages:
            facts += self._message(stored.info).facts
            for part in stored.parts:
                self._see_part(part)
        was_open, self.busy = self._open, True
        if busy:
            return facts
        failure = self._failure
        if failure is not None and now - self._over_at > STALE_S:
            self._failure = _Failure(TurnEnd.UNKNOWN)
        elif was_open and failure is None and not self._over_at:
            # It was begun, nothing runs, and its end is nowhere.
            self._failure = _Failure(TurnEnd.UNKNOWN)
        return facts + self._idle()

    def _message(self, info: Info) -> Reading:
        if info.session_id != self.session_id:
            is_new = info.role == "user" and self._is_new(info.id)
            return Reading(elsewhere=info.session_id if is_new else "")
        if info.role == "user":
            return Reading(self._stored(info.id))
        return Reading(self._answer(info))

    def _stored(self, native_id: str) -> list[Fact]:
        if not self._is_new(native_id):
            return []
        ours = message_id_of(native_id)
        if not ours:
            # Its part tells whether a person wrote it or the server itself.
            self._untold[native_id] = None
            return []
        self._waiting[native_id] = ours
        return [Fact("enqueue", ids=(ours,), source=f"message {native_id}")]

    def _see_part(self, part: Part) -> None:
        if part.message_id in self._untold:
            del self._untold[part.message_id]
            if part.type != "compaction" and not part.synthetic:
                self._waiting[part.message_id] = ""

    def _answer(self, info: Info) -> list[Fact]:
        is_new = self._is_new(info.id)
        if info.is_summary:
            return []
        facts = self._begin(info) if is_new else []
        if info.error is not None and (self._open or is_new):
            self._fail(info.error)
        self._cut = info.is_over and info.error is None and not info.finish
        self._over_at = (info.time.completed or 0.0) / 1000
        return facts

    def _begin(self, info: Info) -> list[Fact]:
        """A new answer: everything up to its parent was read."""
        facts = []
        parent = info.parent_id or ""
        if self._open and parent != self._parent:
            facts.append(self._end())
        if not self._open:
            self._failure = self._told = None
        self._open, self._parent, self.busy = True, parent, True
        for native in [native for native in self._waiting if native <= parent]:
            ours = self._waiting.pop(native)
            ids = (ours,) if ours else ()
            facts.append(Fact("user", ids=ids, source=f"answer {info.id}"))
        return facts

    def _fail(self, error: Error) -> None:
        if self._failure is None:
            self._failure = _failure_of(error)

    def _end(self) -> Fact:
        failure = self._failure
        if failure is None:
            failure = _Failure(TurnEnd.INTERRUPTED if self._cut else TurnEnd.DONE)
        self._open, self._cut, self._failure = False, False, None
        return Fact(
            "turn_end",
            status=failure.status,
            source=f"session {self.session_id}",
            error=failure.error,
            words=failure.words,
            reset_at=failure.reset_at,
        )

    def _idle(self) -> list[Fact]:
        """Nothing runs any more; the server says so twice after an error."""
        was_busy, self.busy = self.busy, False
        if not was_busy or not (self._open or self._failure is not None):
            return []
        return [self._end()]

    def _is_new(self, native_id: str) -> bool:
        is_new = native_id not in self._known
        self._known[native_id] = None
        self._known.move_to_end(native_id)
        for kept in (self._known, self._untold):
            if len(kept) > KEEP:
                kept.popitem(last=False)
        return is_new

    def _session_told(
        self, told: StatusTold | ErrorTold | IdleTold | CompactedTold, now: float
    ) -> Reading:
        match told:
            case StatusTold() if told.status.type != "idle":
                self.busy, self._told = True, None
                return Reading(give_up=self._gives_up(told.status, now))
            case StatusTold() | IdleTold():
                return Reading(self._idle())
            case ErrorTold():
                return Reading(self._error(told.error))
            case CompactedTold():
                return Reading([Fact("compacted", source=f"session {told.session_id}")])

    def _gives_up(self, status: Status, now: float) -> bool:
        """Whether to wait no longer. A wait that is far beyond the server's own is the vendor's."""
        wait_s = status.next / 1000 - now
        if status.type != "retry":
            return False
        if status.attempt <= RETRIES and wait_s < FAR_S:
            return False
        is_vendors = wait_s > 2.0 * 2**status.attempt
        self._failure = _Failure(
            TurnEnd.API_ERROR,
            category_of_wait(status.message),
            status.message[:WORDS_MAX],
            status.next / 1000 if is_vendors else None,
        )
        return True

    def _error(self, error: Error) -> list[Fact]:
        if self.busy:
            self._fail(error)
            return []
        # Refused before anything began (an unknown agent, say): no idle will follow.
        failure = _failure_of(error)
        if self._told is not None or failure.status != TurnEnd.API_ERROR:
            return []
        self._failure = self._told = failure
        return [self._end()]


def _failure_of(error: Error) -> _Failure:
    if error.name == _ABORTED:
        return _Failure(TurnEnd.INTERRUPTED)
    message = error.data.message
    words = message if isinstance(message, str) else error.name
    return _Failure(TurnEnd.API_ERROR, category_of(error), words[:WORDS_MAX])


_KINDS: Mapping[str, type[_Told]] = {
    "message.updated": MessageTold,
    "message.part.updated": PartTold,
    "message.removed": MessageGone,
    "session.status": StatusTold,
    "session.idle": IdleTold,
    "session.error": ErrorTold,
    "session.compacted": CompactedTold,
}
