"""What the app-server's notifications and turns prove: pure reading into facts.

A user message is ours when its client id is one of our markers (`<message id>-<attempt>`); the
ids that the terminal gives to typed messages are UUIDs. Nothing is ever told by a text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

import msgspec

from iapeer.core.ids import is_message_id
from iapeer.core.states import TurnEnd
from iapeer.sessions.evidence import WORDS_MAX, Fact

from .frames import Item, Limits, Turn, TurnError, Window

_Value = TypeVar("_Value")

KEEP = 512
"""Items and turns remembered so as not to report them twice; a page of turns holds 50."""

RUNNING = "inProgress"
CUT = "interrupted"
_ENDS = {
    "completed": TurnEnd.DONE,
    "interrupted": TurnEnd.INTERRUPTED,
    "failed": TurnEnd.API_ERROR,
}
_CATEGORIES = {
    "usageLimitExceeded": "rate_limit",
    "rateLimitExceeded": "rate_limit",
    "sessionBudgetExceeded": "rate_limit",
    "serverOverloaded": "overloaded",
    "unauthorized": "authentication_failed",
    "badRequest": "invalid_request",
    "contextWindowExceeded": "context_window",
    "internalServerError": "server_error",
}
_STATUSES = {
    400: "invalid_request",
    401: "authentication_failed",
    403: "authentication_failed",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}


def message_id_of(client_id: str | None) -> str:
    """Return the message id in a client id of ours, empty for anybody else's."""
    found = (client_id or "").partition("-")[0]
    return found if is_message_id(found) else ""


def category_of(error: TurnError | None) -> str:
    """Return one word for why a turn failed, `unknown` when its record does not tell."""
    info = error.codex_error_info if error is not None else None
    if isinstance(info, str):
        return _CATEGORIES.get(info, "unknown")
    for detail in info.values() if isinstance(info, dict) else ():
        status = detail.get("httpStatusCode") if isinstance(detail, dict) else None
        if isinstance(status, int):
            return _STATUSES.get(status, "server_error" if status >= 500 else "unknown")
    return "unknown"


def reset_in(limits: Limits) -> float | None:
    """Return when the windows that are used up open again (wall time), None when not told."""
    windows: Iterable[Window | None] = (limits.primary, limits.secondary)
    ends = [w.resets_at for w in windows if w is not None and w.used_percent >= 100 and w.resets_at]
    return max(ends, default=None)


class Reader:
    """Turns items and turns into facts, each once, in the order they are given.

    `since` (wall time): turns that ended before it are not reported as ended when they are found
    in a list; somebody else has taken their end.
    """

    def __init__(self, since: float = 0.0) -> None:
        self._since = since
        self._items: OrderedDict[str, None] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()
        """How turns ended, as far as was told."""
        self._started: OrderedDict[str, None] = OrderedDict()
        self._open: dict[str, Turn] = {}
        """The turn that runs, by thread."""
        self._said: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        """Our messages, by turn."""
        self._limits = Limits()

    def limits(self, limits: Limits) -> None:
        """Remember quota windows; an update leaves out what did not change."""
        self._limits = Limits(
            primary=limits.primary or self._limits.primary,
            secondary=limits.secondary or self._limits.secondary,
        )

    def item(self, item: Item, turn_id: str) -> list[Fact]:
        """Read one completed item of a turn."""
        source = f"app-server item {item.id}"
        if item.type == "contextCompaction" and _first(self._items, item.id, None):
            return [Fact("compacted", source=source)]
        if item.type != "userMessage" or not _first(self._items, item.id, None):
            return []
        ours = message_id_of(item.client_id)
        if not ours:
            return [Fact("user", source=source)]
        if not _first(self._said, turn_id, (ours,)):
            self._said[turn_id] += (ours,)
        return [Fact("user", ids=(ours,), source=source)]

    def started(self, thread: str, turn: Turn) -> list[Fact]:
        """Read the start of a turn. A thread runs one at a time: an older one was cut off."""
        if turn.id in self._ended or not _first(self._started, turn.id, None):
            return []
        facts = self.cut_off(thread)
        self._open[thread] = turn
        while len(self._open) > KEEP:
            del self._open[next(iter(self._open))]
        return [*facts, Fact("turn_start", source=f"app-server turn {turn.id}")]

    def runs(self, thread: str) -> bool:
        """Whether a turn was told to have begun in a thread, and its end was not."""
        return thread in self._open

    def cut_off(self, thread: str) -> list[Fact]:
        """Read that nothing runs in a thread any more, whatever was told of its turn."""
        cut = self._open.get(thread)
        return self.ended(_with_status(cut, CUT)) if cut is not None else []

    def ended(self, turn: Turn) -> list[Fact]:
        """Read the end of a turn; messages of turns that run in other threads are spared.

        A turn that was taken for cut off and is told to have completed is corrected.
        """
        end = _ENDS.get(turn.status)
        source = f"app-server turn {turn.id}"
        if end == TurnEnd.DONE and self._ended.get(turn.id) == CUT:
            self._ended[turn.id] = turn.status
            ids = self._said.get(turn.id, ())
            return [Fact("turn_end", ids=ids, status=end, source=source)] if ids else []
        if end is None or not _first(self._ended, turn.id, turn.status):
            return []
        self._open = {thread: runs for thread, runs in self._open.items() if runs.id != turn.id}
        spares = tuple(i for runs in self._open.values() for i in self._said.get(runs.id, ()))
        if end != TurnEnd.API_ERROR:
            return [Fact("turn_end", status=end, source=source, spares=spares)]
        category = category_of(turn.error)
        return [
            Fact(
                "turn_end",
                status=end,
                source=source,
                spares=spares,
                error=category,
                words=(turn.error.message if turn.error else "")[:WORDS_MAX],
                reset_at=reset_in(self._limits) if category == "rate_limit" else None,
            )
        ]

    def caught_up(self, thread: str, turns: Sequence[Turn], *, first: bool) -> list[Fact]:
        """Read a thread's newest turns, oldest first, after a gap or for the `first` time.

        After a gap every turn is reported exactly as if it had been heard. The first time nobody
        knows which ends were taken before: then only how the newest turn with a message of ours
        ended is told, and only when nothing runs any more. What was said in a turn that was cut off
        before `since` is left out: nobody will answer it, and it may be said again.
        """
        if first:
            return self._first_look(thread, turns)
        facts = []
        for turn in turns:
            facts += self.started(thread, turn)
            facts += [fact for item in turn.items for fact in self.item(item, turn.id)]
            facts += self.ended(turn)
        return facts

    def _first_look(self, thread: str, turns: Sequence[Turn]) -> list[Fact]:
        facts = []
        for turn in turns:
            if turn.status == RUNNING:
                facts += self.started(thread, turn)
            else:
                _first(self._ended, turn.id, turn.status)
            said = [fact for item in turn.items for fact in self.item(item, turn.id)]
            facts += [] if turn.status == CUT and self._is_past(turn) else said
        ours = [turn for turn in turns if any(message_id_of(i.client_id) for i in turn.items)]
        if not ours or turns[-1].status == RUNNING:
            return facts
        newest = ours[-1]
        if not self._is_past(newest):
            del self._ended[newest.id]
            facts += self.ended(newest)
        return facts

    def _is_past(self, turn: Turn) -> bool:
        """Whether it ended before `since`; in whole seconds, and that of `since` counts.

        One without an end counts by its start: a turn of our time that was cut off is told.
        """
        return (turn.completed_at or turn.started_at or 0) + 1 <= self._since

    def told_again(self, turn: Turn, message_id: str, *, is_over: bool) -> list[Fact]:
        """Return what a turn proves about a message, whether or not it was told before."""
        source = f"app-server turn {turn.id}"
        facts = [Fact("user", ids=(message_id,), source=source)]
        if is_over and turn.status in _ENDS:
            self._ended.pop(turn.id, None)
            facts += self.ended(turn)
        return facts


def is_unended(turn: Turn) -> bool:
    """Whether a list knows no end of a turn: it runs, was cut off, or the list lags behind.

    The server calls it interrupted as long as it takes the thread for idle (measured).
    """
    return turn.status == RUNNING or (turn.status == CUT and turn.completed_at is None)


def without_ghosts(
    turns: Sequence[Turn], *, active: bool = False, over: Container[str] = ()
) -> list[Turn]:
    """Return a thread's turns, oldest first; only the newest of an `active` one can be running.

    Any other that seems to was cut off with its server, which had no time to write that down; not
    those that are `over`: their end is known and told after this, so until then they run.
    """
    newest = turns[-1].id if turns and active else ""
    found = []
    for turn in turns:
        status = turn.status
        if turn.id in over and is_unended(turn):
            status = RUNNING
        elif status == RUNNING and turn.id != newest:
            status = CUT
        found.append(turn if status == turn.status else _with_status(turn, status))
    return found


def _with_status(turn: Turn, status: str) -> Turn:
    return msgspec.structs.replace(turn, status=status)


def _first(known: OrderedDict[str, _Value], key: str, value: _Value) -> bool:
    """Remember a key and its value; False when it was known."""
    if key in known:
        return False
    known[key] = value
    while len(known) > KEEP:
        known.popitem(last=False)
    return True
