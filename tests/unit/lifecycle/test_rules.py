from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.clock import FakeClock
from iapeer.core.settings import Settings, make_settings
from iapeer.core.states import HoldReason
from iapeer.lifecycle import rules
from iapeer.routing.lanes import presence as asked
from iapeer.routing.lanes.presence import (
    Aftermath,
    Cause,
    Ending,
    Hold,
    Life,
    Look,
    Outcome,
    Presence,
    Reap,
    RuntimeTrouble,
    Start,
    Stay,
)

SETTINGS: Settings = make_settings({"HOME": "/h"})
NOW = 1_790_000_000.0
EDGE = rules.EDGE_S


def _presence(*ago_s: float, **more: Any) -> Presence:
    """A presence with faults that long ago, the oldest first."""
    values: dict[str, Any] = {"stopped": False, "connects_itself": False, **more}
    return Presence(**values, faults=tuple(NOW - ago for ago in ago_s))


def _hold(presence: Presence, now: float = NOW, jitter: float = 0.5) -> Hold | None:
    """The hold that was answered, None when a session is to be started."""
    answer = rules.decide(presence, now, SETTINGS, jitter)
    return answer if isinstance(answer, Hold) else None


def _trouble(peers: int, ago_s: float, failures: int = 0, *, probing: bool = False) -> Presence:
    trouble = RuntimeTrouble(peers, failures or peers, NOW - ago_s, probing=probing)
    return _presence(trouble=trouble)


WAKING, BROKEN = HoldReason.WAKING, HoldReason.BROKEN


@pytest.mark.parametrize(
    ("presence", "expected"),
    [
        (_presence(), None),
        (_presence(stopped=True), Hold(HoldReason.STOPPED)),
        (_presence(stopped=True, connects_itself=True), Hold(HoldReason.STOPPED)),
        (_presence(connects_itself=True), Hold(HoldReason.OFFLINE)),
        (_presence(managed=True), Hold(HoldReason.OFFLINE)),
        (_presence(3, 2, 1, connects_itself=True), Hold(HoldReason.OFFLINE)),
        # Short back-offs, doubling.
        (_presence(0.5), Hold(WAKING, 1.5)),
        (_presence(2.0), None),
        (_presence(20, 1.0), Hold(WAKING, 3.0)),
        (_presence(20, 4.0), None),
        # Three within the window: broken for a minute, then two, up to five.
        (_presence(200, 100, 1.0), Hold(BROKEN, 59.0)),
        (_presence(200, 100, 60.0), None),
        (_presence(200, 150, 100, 20.0), Hold(BROKEN, 100.0)),
        (_presence(250, 200, 150, 100, 50.0), Hold(BROKEN, 190.0)),
        (_presence(*range(50, 0, -1)), Hold(BROKEN, 299.0)),
        # Three, but not within the window; broken stays broken when the window has passed.
        (_presence(900, 500, 1.0), Hold(WAKING, 7.0)),
        (_presence(1000, 990, 980, 400.0), None),
        (_presence(900, 890, 880, 310.0, 100.0), Hold(BROKEN, 140.0)),
        # A healthy time between them forgets the old ones, and so does one since the last.
        (_presence(2000, 1990, 1980, 1.0), Hold(WAKING, 1.0)),
        (_presence(700, 690, 680), None),
        # The runtime itself.
        (_trouble(2, 0.0), None),
        (_trouble(3, 0.0), Hold(BROKEN, 60.0, whole_runtime=True)),
        (_trouble(3, 60.0), None),
        (_trouble(3, 60.0, 4), Hold(BROKEN, 60.0, whole_runtime=True)),
        (_trouble(9, 0.0, 90), Hold(BROKEN, 300.0, whole_runtime=True)),
        (_trouble(3, 500.0, probing=True), Hold(BROKEN, 60.0, whole_runtime=True)),
    ],
)
def test_work_that_waits(presence: Presence, expected: Hold | None) -> None:
    found = _hold(presence)
    assert (found is None) == (expected is None), found
    if found is not None and expected is not None:
        assert (found.reason, found.whole_runtime) == (expected.reason, expected.whole_runtime)
        assert found.retry_s == pytest.approx(expected.retry_s)


TOPICS: dict[str, Any] = {"topics": frozenset({"a", "b"}), "can_resume": True, "parked": True}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Start("fresh", "first-wake")),
        ({"can_resume": True}, Start("fresh", "crash-or-self-close")),
        ({**TOPICS, "topic": "a", "fresh_next": True}, Start("fresh", "soft-reload")),
        ({**TOPICS, "topic": "a", "ephemeral": True}, Start("fresh", "ephemeral-policy")),
        ({**TOPICS, "human": True, "ephemeral": True}, Start("fresh", "ephemeral-policy")),
        ({**TOPICS, "human": True}, Start("resume", "idle-reaped-human")),
        ({"parked": True, "human": True}, Start("fresh", "idle-reaped-human-no-resume")),
        ({**TOPICS, "topic": ""}, Start("fresh", "idle-reaped-no-topic")),
        ({**TOPICS, "topic": "b"}, Start("resume", "idle-reaped-resume")),
        ({**TOPICS, "topic": "b", "can_resume": False}, Start("fresh", "idle-reaped-no-resume")),
        ({**TOPICS, "topic": "c"}, Start("fresh", "idle-reaped-new-topic")),
        ({"can_resume": True, "left_queued": True}, Start("resume", "queue-survived")),
    ],
)
def test_fresh_or_resume(more: dict[str, Any], expected: Start) -> None:
    assert rules.decide(_presence(**more), NOW, SETTINGS) == expected


def _reap(outcome: Outcome, reason: str) -> Reap:
    return Reap(outcome, reason)


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (Life(3600), Stay(EDGE)),
        (Life(3600.5), Look()),
        (Life(3600.5, engaged=False), _reap(Outcome.IDLE, "idle 3600s")),
        (Life(3600.5, engaged=True), Stay(3600)),
        (Life(9999, engaged=False, turn_open=True), Stay(3600)),
        (Life(9999, engaged=False, managed=True), Stay(None)),
        (Life(0, armed=True), Stay(3600 + EDGE)),
        (Life(20, ephemeral=True, armed=True), Stay(EDGE)),
        (Life(20.5, ephemeral=True, armed=True), Look()),
        (
            Life(20.5, ephemeral=True, armed=True, engaged=False),
            _reap(Outcome.DONE, "armed, quiet 20s"),
        ),
        (Life(20.5, ephemeral=True, armed=True, engaged=True), Stay(20)),
        (
            Life(20.5, ephemeral=True, armed=True, engaged=False, turn_open=True),
            Stay(579.5 + EDGE),
        ),
        (
            Life(601, ephemeral=True, armed=True, engaged=False, turn_open=True),
            _reap(Outcome.DONE, "armed, quiet 601s"),
        ),
        (Life(600, ephemeral=True), Stay(EDGE)),
        (Life(601, ephemeral=True), Look()),
        (Life(601, ephemeral=True, engaged=True), Stay(600)),
        (
            Life(601, ephemeral=True, engaged=False),
            _reap(Outcome.UNARMED, "unarmed idle 601s (its turn is complete)"),
        ),
        (
            Life(601, ephemeral=True, engaged=False, turn_open=True),
            _reap(Outcome.UNARMED, "unarmed idle 601s (its turn never ended)"),
        ),
    ],
)
def test_a_quiet_session(life: Life, expected: Stay | Look | Reap) -> None:
    answer = rules.rest(life, SETTINGS)
    if isinstance(expected, Stay) and expected.again_s is not None:
        assert isinstance(answer, Stay)
        assert answer.again_s == pytest.approx(expected.again_s)
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending(Cause.DEATH), Aftermath(fault=True)),
        (Ending(Cause.WALL), Aftermath()),
        (Ending(Cause.REAPED), Aftermath(park=True)),
        (Ending(Cause.REAPED, ephemeral=True), Aftermath()),
        (Ending(Cause.REAPED, ephemeral=True, mid_turn=True), Aftermath(task_again=True)),
        (Ending(Cause.REAPED, ephemeral=True, armed=True, mid_turn=True), Aftermath()),
        (Ending(Cause.STOPPED), Aftermath(park=True)),
        (Ending(Cause.STOPPED, ephemeral=True), Aftermath(park=True)),
        (
            Ending(Cause.STOPPED, ephemeral=True, mid_turn=True),
            Aftermath(park=True, task_again=True),
        ),
        (Ending(Cause.ORDERED), Aftermath()),
        (Ending(Cause.ORDERED, ephemeral=True, mid_turn=True), Aftermath(task_again=True)),
        (Ending(Cause.DEATH, ephemeral=True), Aftermath(fault=True, task_again=True)),
        (Ending(Cause.WALL, ephemeral=True), Aftermath(task_again=True)),
        (Ending(Cause.DEATH, ephemeral=True, armed=True), Aftermath(fault=True)),
        (Ending(Cause.DEATH, mid_turn=True), Aftermath(fault=True)),
    ],
)
def test_what_follows_from_an_end(ending: Ending, expected: Aftermath) -> None:
    assert rules.after(ending) == expected


def test_a_back_off_doubles_up_to_its_ceiling() -> None:
    short = [rules.backoff_s(n, SETTINGS, 0.5) for n in range(10)]
    assert short == [0, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert [rules.broken_backoff_s(n, SETTINGS, 0.5) for n in range(5)] == [60, 120, 240, 300, 300]


FAULTS = st.lists(st.floats(0, 4e9), max_size=20).map(lambda found: tuple(sorted(found)))
ANY = st.builds(
    Presence,
    stopped=st.booleans(),
    connects_itself=st.booleans(),
    managed=st.booleans(),
    faults=FAULTS,
    trouble=st.builds(
        RuntimeTrouble,
        peers=st.integers(0, 9),
        failures=st.integers(0, 90),
        last_at=st.floats(0, 4e9),
        probing=st.booleans(),
    ),
)


@given(ANY, st.floats(0, 4e9), st.floats(0, 1))
def test_the_answer_is_a_start_or_a_hold_that_ends(
    presence: Presence, now: float, jitter: float
) -> None:
    hold = _hold(presence, now, jitter)
    assert hold == _hold(presence, now, jitter)
    if hold is None:
        assert (presence.stopped, presence.connects_itself, presence.managed) == (False,) * 3
        return
    waits_for_us = hold.reason in (WAKING, BROKEN)
    assert (hold.retry_s is not None) == waits_for_us
    if hold.retry_s is not None:
        most = SETTINGS.boot_backoff_max_s * (1 + rules.JITTER)
        assert 0 < hold.retry_s <= most + 1e-6
        assert presence.faults or presence.trouble.peers


@given(st.integers(1, 50), st.floats(-1e7, 1e7), st.floats(0, 1))
def test_a_jump_of_the_wall_clock_delays_a_start_by_one_back_off_at_most(
    faults: int, jump_s: float, jitter: float
) -> None:
    clock = FakeClock(NOW)
    presence = _presence(*([0.0] * faults))
    clock.jump(jump_s)
    began = clock.monotonic()
    hold = _hold(presence, clock.now(), jitter)
    for _ in range(10):
        if hold is None:
            break
        assert hold.retry_s is not None
        clock.advance(hold.retry_s + 1e-6)
        hold = _hold(presence, clock.now(), jitter)
    limit = max(
        rules.backoff_s(faults, SETTINGS, jitter), rules.broken_backoff_s(faults, SETTINGS, jitter)
    )
    assert hold is None
    assert clock.monotonic() - began <= limit + 1e-3


def test_two_peers_that_failed_together_do_not_come_back_together() -> None:
    answer = rules.LifecycleRules(SETTINGS, seed=1)
    waits = {answer.wake(_presence(0.0), NOW) for _ in range(20)}
    assert len(waits) == 20
    assert all(isinstance(w, Hold) and w.retry_s is not None for w in waits)
    assert {1.6 <= (w.retry_s or 0) <= 2.4 for w in waits if isinstance(w, Hold)} == {True}


@given(
    st.builds(
        Life,
        idle_s=st.floats(0, 1e6),
        ephemeral=st.booleans(),
        armed=st.booleans(),
        turn_open=st.booleans(),
        engaged=st.booleans(),
        managed=st.booleans(),
    )
)
def test_nothing_that_is_engaged_is_ended_and_a_worker_never_blocks_its_queue(life: Life) -> None:
    answer = rules.rest(life, SETTINGS)
    assert not isinstance(answer, Look)
    if life.engaged or life.managed:
        assert isinstance(answer, Stay)
    elif life.ephemeral and life.idle_s > SETTINGS.ephemeral_unarmed_idle_s:
        assert isinstance(answer, Reap)
    if isinstance(answer, Stay) and answer.again_s is not None:
        assert 0 < answer.again_s <= SETTINGS.idle_s + EDGE


def test_every_phase_has_a_word_people_read() -> None:
    assert {p.value for p in asked.Phase} == {"asleep", "adopting", "booting", "live"}
