"""The checker can fail: one hand-made bad history for each kind of lie, and a good one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from iapeer.testing.chaos.checker import check
from iapeer.testing.chaos.history import (
    Call,
    Deed,
    Event,
    Fate,
    History,
    Leak,
    Showing,
    Stray,
    Twins,
    read_history,
)

SENDER, READER = "api-s", "demo-r"


def call(number: int, **more: object) -> Call:
    found = Call(
        number=number,
        sender=SENDER,
        recipient=READER,
        path="http",
        outcome="ok",
        began=number,
        ended=number + 0.5,
        message_id=f"id{number}",
        state="landed",
    )
    return msgspec.structs.replace(found, **more)


def shown(number: int, at: float, **more: object) -> Showing:
    found = Showing(
        reader=READER, number=number, message_id=f"id{number}", dup=False, at=at, session="x"
    )
    return msgspec.structs.replace(found, **more)


def fate(number: int, state: str = "seen", **more: object) -> Fate:
    found = Fate(
        number=number,
        message_id=f"id{number}",
        sender=SENDER,
        recipient=READER,
        state=state,
        reason="",
        dup=False,
        attempt=1,
        api_state=state,
        told=True,
    )
    return msgspec.structs.replace(found, **more)


def deed(kind: str, began: float, ended: float) -> Deed:
    return Deed(kind=kind, target="", outcome="done", began=began, ended=ended)


def kinds(*events: Event) -> list[str]:
    return sorted(violation.kind for violation in check(events))


GOOD: list[Event] = [
    call(1), fate(1), shown(1, 10),
    # Shown twice, the second time marked.
    call(2), fate(2), shown(2, 11), shown(2, 12, dup=True),
    # No answer, and not there; no answer, and there all the same.
    call(3, outcome="unknown", message_id=""),
    call(4, outcome="unknown", message_id=""), fate(4), shown(4, 13),
    call(5, outcome="refused", message_id=""),
    # Failed, and the sender was told; it may have been shown before.
    call(6), fate(6, "failed"), shown(6, 14),
    call(7), fate(7, "expired"),
    # Late, but marked: it had been in a session that left no proof.
    call(8), fate(8), call(9), fate(9), shown(9, 15), shown(8, 16, dup=True),
    # Another pair has an order of its own.
    call(10), fate(10), call(11, sender="api-t"), fate(11), shown(11, 17), shown(10, 18),
    # An ok that was begun before the disk failed.
    deed("fsync_error", 9.2, 9.9),
]  # fmt: skip


def test_a_history_without_a_lie_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        ("lost", [call(1), fate(1)]),
        ("lost", [call(1, outcome="unknown", message_id=""), fate(1)]),
        ("lost", [call(1), fate(1, "landed")]),
        ("stuck", [call(1), fate(1, "held"), shown(1, 5)]),
        ("stuck", [call(1), fate(1, "in_flight"), shown(1, 5)]),
        ("repeat", [call(1), fate(1), shown(1, 5), shown(1, 6)]),
        ("repeat", [call(1), fate(1), shown(1, 5, dup=True), shown(1, 6)]),
        ("doubled", [call(1), fate(1), shown(1, 5), shown(1, 6, message_id="x", dup=True)]),
        ("order", [call(1), call(2), fate(1), fate(2), shown(2, 5), shown(1, 6)]),
        ("untold", [call(1), fate(1, "failed", told=False)]),
        ("state", [call(1), shown(1, 5)]),
        ("state", [call(1), fate(1, "lost", api_state="lost"), shown(1, 5)]),
        ("state", [call(1), fate(1, api_state="held"), shown(1, 5)]),
        ("refused_shown", [call(1, outcome="refused", message_id=""), shown(1, 5)]),
        ("refused_shown", [call(1, outcome="refused", message_id=""), fate(1, "failed")]),
        ("false_ok", [call(1), fate(1), shown(1, 5), deed("fsync_error", 0.5, 2.0)]),
        ("strayed", [call(1), fate(1), shown(1, 5, reader="demo-x")]),
        ("strayed", [shown(1, 5)]),
        ("damaged", [call(1), fate(1), shown(1, 5, intact=False)]),
        ("twins", [Twins(identity=READER, detail="a, b", at=1)]),
        ("leak", [Leak(where="log delivery.log")]),
        ("orphan", [Stray(detail="a tmux server")]),
    ],
)
def test_a_history_with_one_lie_is_found_out(kind: str, events: list[Event]) -> None:
    assert kinds(*events) == [kind]


def test_the_order_of_showings_is_that_of_time_not_of_the_file() -> None:
    events: list[Event] = [call(1), call(2), fate(1), fate(2), shown(2, 6), shown(1, 5)]
    assert check(events) == []


def test_a_repeated_showing_does_not_count_against_the_order() -> None:
    events: list[Event] = [call(1), call(2), fate(1), fate(2)]
    events += [shown(1, 5), shown(2, 6), shown(1, 7, dup=True)]
    assert check(events) == []


def test_a_history_reads_back_as_it_was_written(tmp_path: Path) -> None:
    history = History(tmp_path / "h.jsonl")
    history.add_all(GOOD)
    history.close()
    assert list(read_history(history.path)) == GOOD
