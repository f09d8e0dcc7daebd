from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.states import TurnEnd
from iapeer.sessions.appserver.frames import Item, Limits, Turn, TurnError, Window
from iapeer.sessions.appserver.reading import (
    Reader,
    category_of,
    message_id_of,
    reset_in,
    without_ghosts,
)
from iapeer.sessions.evidence import Fact

OURS = "abcdefgh2345"
TYPED = "52b92c29-eebb-4fb6-b92b-21947d06e337"
THREAD = "t"


def said(client_id: str | None, name: str = "") -> Item:
    return Item(type="userMessage", id=name or f"i-{client_id}", client_id=client_id)


def turn(name: str, *items: Item, status: str = "completed", at: int = 1_000) -> Turn:
    return Turn(id=name, status=status, items=items, completed_at=at)


def plain(facts: list[Fact]) -> list[tuple[str, tuple[str, ...], str]]:
    return [(fact.kind, fact.ids, fact.status) for fact in facts]


@pytest.mark.parametrize(
    ("client_id", "found"),
    [(f"{OURS}-1", OURS), (OURS, OURS), (TYPED, ""), (None, ""), ("", ""), ("x-1", "")],
)
def test_only_our_own_client_ids_name_a_message(client_id: str | None, found: str) -> None:
    assert message_id_of(client_id) == found


def test_a_user_message_counts_once_and_one_that_was_typed_names_nobody() -> None:
    reader = Reader()
    assert plain(reader.item(said(f"{OURS}-1"), "1")) == [("user", (OURS,), "")]
    assert reader.item(said(f"{OURS}-1"), "1") == []
    assert plain(reader.item(said(TYPED), "1")) == [("user", (), "")]
    assert reader.item(Item(type="agentMessage", id="a", client_id=f"{OURS}-1"), "1") == []


def test_a_compaction_is_told_once() -> None:
    reader = Reader()
    item = Item(type="contextCompaction", id="c")
    assert plain(reader.item(item, "1") + reader.item(item, "1")) == [("compacted", (), "")]


@pytest.mark.parametrize(
    ("info", "category"),
    [
        ("usageLimitExceeded", "rate_limit"),
        ("serverOverloaded", "overloaded"),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, "rate_limit"),
        ({"httpConnectionFailed": {"httpStatusCode": 401}}, "authentication_failed"),
        ({"httpConnectionFailed": {"httpStatusCode": 502}}, "server_error"),
        ({"httpConnectionFailed": {"httpStatusCode": None}}, "unknown"),
        ({"activeTurnNotSteerable": {"turnKind": "review"}}, "unknown"),
        ("other", "unknown"),
        (None, "unknown"),
        ([], "unknown"),
    ],
)
def test_an_error_gets_one_word(info: Any, category: str) -> None:
    assert category_of(TurnError("words", info)) == category
    assert category_of(None) == "unknown"


def test_a_failed_turn_says_when_the_used_up_window_opens_again() -> None:
    reader = Reader()
    reader.limits(Limits(primary=Window(100, 5_000.0), secondary=Window(20, 90_000.0)))
    # A later update that leaves a window out does not take it back.
    reader.limits(Limits(secondary=Window(30, 91_000.0)))
    error = TurnError("You've hit your usage limit.", "usageLimitExceeded")
    (fact,) = reader.ended(Turn(id="1", status="failed", error=error))
    assert (fact.status, fact.error, fact.reset_at) == (TurnEnd.API_ERROR, "rate_limit", 5_000.0)
    assert fact.words == "You've hit your usage limit."
    # Another failure has nothing to do with the window.
    (other,) = reader.ended(Turn(id="2", status="failed", error=TurnError("x", "unauthorized")))
    assert (other.error, other.reset_at) == ("authentication_failed", None)


def test_without_a_used_up_window_nobody_knows_the_reset() -> None:
    assert reset_in(Limits()) is None
    assert reset_in(Limits(primary=Window(99.5, 5_000.0))) is None
    assert reset_in(Limits(primary=Window(100, None))) is None
    assert reset_in(Limits(primary=Window(100, 5.0), secondary=Window(100, 9.0))) == 9.0


def test_a_turn_that_starts_while_another_is_open_ends_that_one() -> None:
    reader = Reader()
    facts = reader.started(THREAD, turn("1", status="inProgress"))
    facts += reader.started(THREAD, turn("2", status="inProgress"))
    facts += reader.ended(turn("1"))
    facts += reader.ended(turn("2"))
    assert plain(facts) == [
        ("turn_start", (), ""),
        ("turn_end", (), TurnEnd.INTERRUPTED),
        ("turn_start", (), ""),
        ("turn_end", (), TurnEnd.DONE),
    ]


def test_turns_of_two_threads_do_not_end_each_other() -> None:
    reader = Reader()
    reader.started("one", turn("1", status="inProgress"))
    assert plain(reader.started("two", turn("2", status="inProgress"))) == [("turn_start", (), "")]


def test_the_end_of_a_turn_spares_what_was_said_in_turns_of_other_threads() -> None:
    reader = Reader()
    for thread, name, ours in (("one", "1", OURS), ("two", "2", "bcdefghi2345")):
        reader.started(thread, turn(name, status="inProgress"))
        reader.item(said(f"{ours}-1"), name)
    (first,) = reader.ended(turn("1"))
    assert first.spares == ("bcdefghi2345",)
    (second,) = reader.ended(turn("2", status="failed"))
    assert second.spares == ()
    reader.started("one", turn("3", status="inProgress"))
    reader.item(said(f"{OURS}-2"), "3")
    reader.started("two", turn("4", status="inProgress"))
    cut, _ = reader.started("two", turn("5", status="inProgress"))
    assert cut.spares == (OURS,)


def test_a_turn_that_was_taken_for_cut_off_is_corrected_once_and_by_its_completion_only() -> None:
    reader = Reader()
    reader.started(THREAD, turn("1", status="inProgress"))
    reader.item(said(f"{OURS}-1"), "1")
    assert plain(reader.cut_off(THREAD)) == [("turn_end", (), TurnEnd.INTERRUPTED)]
    assert reader.cut_off(THREAD) == []
    assert reader.ended(turn("1", status="failed")) == []
    assert plain(reader.ended(turn("1"))) == [("turn_end", (OURS,), TurnEnd.DONE)]
    assert reader.ended(turn("1")) == []
    assert reader.ended(turn("1", status="interrupted")) == []


def test_a_first_look_tells_every_message_and_only_the_last_end_of_ours() -> None:
    turns = [
        turn("1", said(f"{OURS}-1"), status="failed"),
        turn("2", said(TYPED)),
        turn("3", said("bcdefghi2345-1"), status="interrupted"),
        turn("4", said(TYPED, "other")),
    ]
    reader = Reader()
    assert plain(reader.caught_up(THREAD, turns, first=True)) == [
        ("user", (OURS,), ""),
        ("user", (), ""),
        ("user", ("bcdefghi2345",), ""),
        ("user", (), ""),
        ("turn_end", (), TurnEnd.INTERRUPTED),
    ]
    assert reader.caught_up(THREAD, turns, first=False) == []


def test_a_first_look_in_a_running_turn_tells_no_end() -> None:
    turns = [turn("1", said(f"{OURS}-1")), turn("2", said("bcdefghi2345-1"), status="inProgress")]
    reader = Reader()
    facts = reader.caught_up(THREAD, turns, first=True)
    assert [fact.kind for fact in facts] == ["user", "turn_start", "user"]
    assert plain(reader.ended(turn("2"))) == [("turn_end", (), TurnEnd.DONE)]


def test_ends_from_before_our_time_are_not_told_again() -> None:
    turns = [turn("1", said(f"{OURS}-1"), status="failed", at=1_000)]
    assert plain(Reader(since=1_001).caught_up(THREAD, turns, first=True)) == [
        ("user", (OURS,), "")
    ]
    # Whole seconds: the same second counts.
    facts = Reader(since=1_000.9).caught_up(THREAD, turns, first=True)
    assert [fact.kind for fact in facts] == ["user", "turn_end"]


def test_a_turn_that_seems_to_run_in_an_idle_thread_was_cut_off() -> None:
    (found,) = without_ghosts([turn("1", status="inProgress")])
    assert found.status == "interrupted"
    assert without_ghosts([turn("1")]) == [turn("1")]


def test_only_the_newest_turn_of_an_active_thread_can_be_running() -> None:
    turns = [turn("1", status="inProgress"), turn("2", status="inProgress")]
    found = without_ghosts(turns, active=True)
    assert [t.status for t in found] == ["interrupted", "inProgress"]


@pytest.mark.parametrize("status", ["inProgress", "interrupted"])
def test_a_turn_whose_end_is_still_to_be_told_runs_until_then(status: str) -> None:
    listed = Turn(id="1", status=status)
    (found,) = without_ghosts([listed], over={"1"})
    assert found.status == "inProgress"
    # The list knows its end already.
    assert without_ghosts([turn("1", status="interrupted")], over={"1"})[0].status == "interrupted"


def test_a_thread_runs_from_the_start_of_a_turn_to_its_end() -> None:
    reader = Reader()
    assert not reader.runs(THREAD)
    reader.started(THREAD, turn("1", status="inProgress"))
    assert reader.runs(THREAD)
    assert not reader.runs("other")
    reader.ended(turn("1"))
    assert not reader.runs(THREAD)


def test_what_was_said_in_a_turn_cut_off_before_our_time_may_be_said_again() -> None:
    turns = [
        turn("1", said(f"{OURS}-1"), status="interrupted", at=1_000),
        turn("2", said("bcdefghi2345-1"), at=1_000),
    ]
    reader = Reader(since=1_001)
    facts = reader.caught_up(THREAD, turns, first=True)
    assert plain(facts) == [("user", ("bcdefghi2345",), "")]
    assert plain(reader.item(said(f"{OURS}-2"), "3")) == [("user", (OURS,), "")]
    # One without an end counts by its start.
    begun = Turn(id="1", status="interrupted", items=(said(f"{OURS}-1"),), started_at=1_001)
    assert Reader(since=1_002).caught_up(THREAD, [begun], first=True) == []
    facts = Reader(since=1_001.5).caught_up(THREAD, [begun], first=True)
    assert plain(facts) == [("user", (OURS,), ""), ("turn_end", (), TurnEnd.INTERRUPTED)]
    # Cut off later it was ours to answer.
    facts = Reader(since=1_000.9).caught_up(THREAD, turns[:1], first=True)
    assert plain(facts) == [("user", (OURS,), ""), ("turn_end", (), TurnEnd.INTERRUPTED)]


def test_what_a_turn_proves_can_be_told_again_its_end_only_when_nothing_runs() -> None:
    found = turn("1", said(f"{OURS}-1"))
    reader = Reader()
    reader.caught_up(THREAD, [found], first=True)
    assert plain(reader.told_again(found, OURS, is_over=False)) == [("user", (OURS,), "")]
    again = [("user", (OURS,), ""), ("turn_end", (), TurnEnd.DONE)]
    assert plain(reader.told_again(found, OURS, is_over=True)) == again
    assert reader.ended(found) == []


@given(st.lists(st.sampled_from(["completed", "interrupted", "failed"]), max_size=8), st.data())
def test_whatever_is_missed_in_a_gap_is_told_afterwards_once_and_in_order(
    statuses: list[str], data: st.DataObject
) -> None:
    """Every step is heard or not; then the whole list is read, twice."""
    turns = [
        turn(f"t{n}", said(f"{OURS[:-1]}{'234567'[n % 6]}-{n}"), status=status)
        for n, status in enumerate(statuses)
    ]
    reader, facts = Reader(), []
    heard = data.draw(st.integers(0, 3 * len(turns)))
    for step in range(heard):
        found = turns[step // 3]
        if step % 3 == 0:
            facts += reader.started(THREAD, found)
        elif step % 3 == 1:
            facts += reader.item(found.items[0], found.id)
        else:
            facts += reader.ended(found)
    facts += reader.caught_up(THREAD, turns, first=False)
    facts += reader.caught_up(THREAD, turns, first=False)
    whole = Reader().caught_up(THREAD, turns, first=False)
    assert plain(facts) == plain(whole)
    assert [fact.kind for fact in whole] == ["turn_start", "user", "turn_end"] * len(turns)
