"""Looks for a lie in a history. Pure: the same events always give the same violations.

| kind | what was promised |
| --- | --- |
| `lost` | what was answered ok, or lies in the ledger, is shown, or ends `failed`/`expired` |
| `stuck` | after the run has come to rest, no message still waits |
| `repeat` | shown again only when that showing is marked `dup="maybe"` |
| `doubled` | one call makes one message, under one id |
| `order` | first showings of a sender's messages at a reader come in the sender's order |
| `untold` | the sender of a message that failed or expired has a notice about it |
| `state` | every message answered ok is known, to ledger and API alike, in one of the states |
| `refused_shown` | what was refused was never shown |
| `false_ok` | nothing is answered ok while no sync to disk succeeds |
| `strayed` | a message is shown to its recipient only |
| `damaged` | it is shown whole, alone and unchanged |
| `twins` | never two live sessions of one identity |
| `leak` | no body on a command line or in a log |
| `orphan` | at the end only sessions of the ledger run, each with one recorder; all go together |

Order, precisely: of two messages of one sender to one reader, the later one may be shown first
only if the first showing of the earlier one is marked `dup="maybe"`. The mark says that the
message had been handed to a session which then left no proof (it died, or was silent for the time
evidence gets); nobody can tell whether that reader saw it, in order, and what came behind it
is not kept waiting for ever. A message without the mark has no such excuse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from iapeer.core.states import FINAL, UNDELIVERED, MessageState

from .history import Call, Deed, Event, Fate, Leak, Showing, Stray, Twins


@dataclass(frozen=True)
class Violation:
    """One broken promise: its kind, the message or identity, and what speaks for it."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True)
class _View:
    """The history, sorted out: `shown` holds the showings of each number in order of time."""

    calls: Mapping[int, Call]
    shown: Mapping[int, Sequence[Showing]]
    fates: Mapping[int, Sequence[Fate]]
    showings: Sequence[Showing]
    events: Sequence[Event]


def check(events: Sequence[Event]) -> list[Violation]:
    """Return every violation the history proves, in the order of the table above."""
    showings = sorted((e for e in events if isinstance(e, Showing)), key=lambda s: s.at)
    shown: dict[int, list[Showing]] = defaultdict(list)
    fates: dict[int, list[Fate]] = defaultdict(list)
    for showing in showings:
        if showing.number:
            shown[showing.number].append(showing)
    for event in events:
        if isinstance(event, Fate):
            fates[event.number].append(event)
    calls = {e.number: e for e in events if isinstance(e, Call)}
    view = _View(calls, shown, fates, showings, events)
    return [violation for rule in _RULES for violation in rule(view)]


def _lost(view: _View) -> Iterator[Violation]:
    duties = {f.number: f.state for found in view.fates.values() for f in found}
    for call in view.calls.values():
        if call.outcome == "ok":
            duties.setdefault(call.number, "unknown to the ledger")
    for number, state in sorted(duties.items()):
        if number not in view.shown and state not in FINAL:
            yield Violation("lost", str(number), f"never shown; {_story(view, number)}")


def _stuck(view: _View) -> Iterator[Violation]:
    for number, found in view.fates.items():
        for fate in found:
            if fate.state in UNDELIVERED:
                yield Violation("stuck", str(number), f"{fate.state}: {fate.reason}")


def _repeat(view: _View) -> Iterator[Violation]:
    for number, found in view.shown.items():
        for again in found[1:]:
            if not again.dup:
                yield Violation("repeat", str(number), _story(view, number))


def _doubled(view: _View) -> Iterator[Violation]:
    for number in sorted({*view.shown, *view.fates}):
        ids = {f.message_id for f in view.fates.get(number, ())}
        ids |= {s.message_id for s in view.shown.get(number, ())}
        call = view.calls.get(number)
        if call is not None and call.message_id:
            ids.add(call.message_id)
        if len(ids) > 1:
            yield Violation("doubled", str(number), f"ids {', '.join(sorted(ids))}")


def _order(view: _View) -> Iterator[Violation]:
    newest: dict[tuple[str, str], int] = {}
    known: set[tuple[str, int]] = set()
    for showing in view.showings:
        call = view.calls.get(showing.number)
        if call is None or (showing.reader, showing.number) in known:
            continue
        known.add((showing.reader, showing.number))
        pair = (call.sender, showing.reader)
        before = newest.get(pair, 0)
        if showing.number < before and not showing.dup:
            what = f"{call.sender} to {showing.reader}: shown after {before}"
            yield Violation("order", str(showing.number), what)
        newest[pair] = max(before, showing.number)


def _untold(view: _View) -> Iterator[Violation]:
    for number, found in view.fates.items():
        for fate in found:
            if fate.state in FINAL and not fate.told:
                yield Violation("untold", str(number), f"{fate.state}: {fate.reason}")


def _state(view: _View) -> Iterator[Violation]:
    for call in view.calls.values():
        if call.outcome != "ok":
            continue
        fates = [f for f in view.fates.get(call.number, ()) if f.message_id == call.message_id]
        if not fates:
            yield Violation("state", str(call.number), f"{call.message_id} is not in the ledger")
        for fate in fates:
            if fate.state not in set(MessageState) or fate.api_state != fate.state:
                what = f"ledger {fate.state!r}, API {fate.api_state!r}"
                yield Violation("state", str(call.number), what)


def _refused_shown(view: _View) -> Iterator[Violation]:
    for call in view.calls.values():
        if call.outcome == "refused" and (call.number in view.shown or call.number in view.fates):
            yield Violation("refused_shown", str(call.number), _story(view, call.number))


def _false_ok(view: _View) -> Iterator[Violation]:
    windows = [
        (e.began, e.ended)
        for e in view.events
        if isinstance(e, Deed) and e.kind == "fsync_error" and e.outcome == "done"
    ]
    for call in view.calls.values():
        inside = any(began <= call.began and call.ended <= ended for began, ended in windows)
        if inside and call.outcome == "ok":
            yield Violation("false_ok", str(call.number), "answered ok while every sync failed")


def _strayed(view: _View) -> Iterator[Violation]:
    for number, found in view.shown.items():
        call = view.calls.get(number)
        for showing in found:
            if call is None or showing.reader != call.recipient:
                to = call.recipient if call else "nobody: no such call"
                yield Violation("strayed", str(number), f"to {to}, shown to {showing.reader}")


def _damaged(view: _View) -> Iterator[Violation]:
    for showing in view.showings:
        if not showing.intact:
            subject = showing.message_id or str(showing.number)
            yield Violation("damaged", subject, f"at {showing.reader} in {showing.session}")


def _others(view: _View) -> Iterator[Violation]:
    for event in view.events:
        match event:
            case Twins():
                yield Violation("twins", event.identity, event.detail)
            case Leak():
                yield Violation("leak", event.where, "holds body text")
            case Stray():
                yield Violation("orphan", event.detail, "runs and may not")
            case _:
                continue


def _story(view: _View, number: int) -> str:
    call = view.calls.get(number)
    parts = []
    if call is not None:
        where = f"{call.sender} to {call.recipient} by {call.path}"
        parts.append(f"{where}: {call.outcome} {call.message_id} {call.state or call.code}".strip())
    parts += [
        f"ledger {f.message_id} {f.state} attempt {f.attempt}" for f in view.fates.get(number, ())
    ]
    parts += [
        f"shown {s.at:.3f} session {s.session[:8]}{' dup' if s.dup else ''}"
        for s in view.shown.get(number, ())
    ]
    return "; ".join(parts)


_RULES = (
    _lost,
    _stuck,
    _repeat,
    _doubled,
    _order,
    _untold,
    _state,
    _refused_shown,
    _false_ok,
    _strayed,
    _damaged,
    _others,
)
