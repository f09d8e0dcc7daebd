from __future__ import annotations

import itertools

import pytest

from iapeer.core.states import (
    DELIVERED,
    FINAL,
    TRANSITIONS,
    UNDELIVERED,
    Event,
    MessageState,
    TurnEnd,
    next_state,
)

S, E = MessageState, Event


def test_every_state_is_undelivered_delivered_or_final_and_only_one_of_them() -> None:
    groups = [UNDELIVERED, DELIVERED, FINAL]
    assert sorted(s for g in groups for s in g) == sorted(MessageState)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(MessageState, Event)))
def test_a_step_is_in_the_table_or_a_defect(state: MessageState, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"no transition from {state} by {event}"):
            next_state(state, event)


def test_nothing_leads_out_of_a_final_state() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_what_was_delivered_never_fails_or_expires_and_only_goes_back_by_a_return() -> None:
    for (state, event), after in TRANSITIONS.items():
        if state in DELIVERED:
            assert event in (E.SEE, E.RETURN), (state, event)
            assert after is (S.SEEN if event is E.SEE else S.ACCEPTED)


def test_what_may_be_shown_never_expires_and_every_waiting_state_can_be_given_up() -> None:
    assert (S.IN_FLIGHT, E.EXPIRE) not in TRANSITIONS
    for state in (S.ACCEPTED, S.HELD):
        assert {next_state(state, E.FAIL), next_state(state, E.EXPIRE)} == FINAL


def test_only_a_hand_over_puts_a_message_in_flight_and_never_twice() -> None:
    ways = {(s, e) for (s, e), after in TRANSITIONS.items() if after is S.IN_FLIGHT}
    assert ways == {(S.ACCEPTED, E.HAND_OVER), (S.HELD, E.HAND_OVER)}


def test_every_state_is_reached_from_acceptance() -> None:
    reached, before = {S.ACCEPTED}, set[MessageState]()
    while reached != before:
        before = set(reached)
        reached |= {after for (s, _), after in TRANSITIONS.items() if s in before}
    assert reached == set(MessageState)


def test_the_ways_a_turn_ends_are_the_designs() -> None:
    assert [t.value for t in TurnEnd] == ["done", "api_error", "interrupted", "died", "unknown"]
