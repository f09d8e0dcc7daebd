from __future__ import annotations

import asyncio

import pytest

from iapeer.core.states import HoldReason, MessageState
from iapeer.routing.waits import Waits, is_answer

LANE = ("u1", "demo")


@pytest.mark.parametrize("state", MessageState)
def test_only_work_under_way_keeps_the_sender_waiting(state: MessageState) -> None:
    open_states = {MessageState.ACCEPTED, MessageState.IN_FLIGHT, MessageState.HELD}
    assert is_answer(state, HoldReason.WAKING) == (state not in open_states)


@pytest.mark.parametrize("reason", HoldReason)
def test_every_hold_but_waking_is_an_answer(reason: HoldReason) -> None:
    assert is_answer(MessageState.HELD, reason) == (reason != HoldReason.WAKING)


def test_an_unknown_reason_is_told_rather_than_waited_for() -> None:
    assert is_answer(MessageState.HELD, "a reason of a later version")


def test_a_message_and_its_lane_wake_exactly_their_waiters() -> None:
    async def check() -> None:
        waits = Waits()
        with (
            waits.watch("a", LANE) as a,
            waits.watch("b", LANE) as b,
            waits.watch("c", ("u2", "demo")) as c,
        ):
            waits.changed("a")
            assert (a.is_set(), b.is_set(), c.is_set()) == (True, False, False)
            a.clear()
            waits.lane_changed(LANE)
            assert (a.is_set(), b.is_set(), c.is_set()) == (True, True, False)

    asyncio.run(check())


def test_a_change_nobody_waits_for_is_no_error_and_nothing_is_kept() -> None:
    async def check() -> None:
        waits = Waits()
        with waits.watch("a", LANE):
            pass
        waits.changed("a")
        waits.lane_changed(LANE)
        assert not waits._by_message
        assert not waits._by_lane

    asyncio.run(check())


def test_two_waiters_for_one_message_both_hear_and_leave_nothing() -> None:
    """A repeated key waits for the first call's message while that one still waits."""

    async def check() -> None:
        waits = Waits()
        with waits.watch("a", LANE) as first:
            with waits.watch("a", LANE) as second:
                waits.changed("a")
                assert (first.is_set(), second.is_set()) == (True, True)
            first.clear()
            waits.changed("a")
            assert first.is_set()
            first.clear()
            waits.lane_changed(LANE)
            assert first.is_set()
        assert not waits._by_message
        assert not waits._by_lane

    asyncio.run(check())
