from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.clock import FakeClock
from iapeer.core.settings import Settings, make_settings
from iapeer.core.states import HoldReason
from iapeer.lifecycle import rules
from iapeer.routing.lanes import presence as asked
from iapeer.routing.lanes.presence import Hold, Presence

SETTINGS: Settings = make_settings({"HOME": "/h"})
NOW = 1_790_000_000.0


def _presence(faults: int = 0, ago_s: float = 0.0, **more: bool) -> Presence:
    last = NOW - ago_s if faults else 0.0
    values = {"stopped": False, "connects_itself": False, **more}
    return Presence(**values, faults=faults, last_fault_at=last)


def _hold(presence: Presence, now: float = NOW, jitter: float = 0.5) -> Hold | None:
    """The hold that was answered, None when a session is to be started."""
    answer = rules.decide(presence, now, SETTINGS, jitter)
    return answer if isinstance(answer, Hold) else None


@pytest.mark.parametrize(
    ("presence", "expected"),
    [
        (_presence(), None),
        (_presence(stopped=True), Hold(HoldReason.STOPPED)),
        (_presence(stopped=True, connects_itself=True), Hold(HoldReason.STOPPED)),
        (_presence(connects_itself=True), Hold(HoldReason.OFFLINE)),
        (_presence(connects_itself=True, faults=9), Hold(HoldReason.OFFLINE)),
        (_presence(faults=1, ago_s=0.5), Hold(HoldReason.WAKING, 1.5)),
        (_presence(faults=1, ago_s=2.0), None),
        (_presence(faults=2, ago_s=1.0), Hold(HoldReason.WAKING, 3.0)),
        (_presence(faults=2, ago_s=4.0), None),
        (_presence(faults=3, ago_s=1.0), Hold(HoldReason.BROKEN, 59.0)),
        (_presence(faults=3, ago_s=60.0), None),
        (_presence(faults=50, ago_s=1.0), Hold(HoldReason.BROKEN, 59.0)),
    ],
)
def test_the_table_is_what_it_says(presence: Presence, expected: Hold | None) -> None:
    assert _hold(presence) == expected


def test_a_back_off_doubles_up_to_its_ceiling() -> None:
    slow = make_settings({"HOME": "/h"}, {"boots_before_broken": 20})
    waits = [rules.backoff_s(n, slow, 0.5) for n in range(8)]
    assert waits == [0, 2, 4, 8, 16, 32, 60, 60]


ANY = st.builds(
    Presence,
    stopped=st.booleans(),
    connects_itself=st.booleans(),
    faults=st.integers(0, 50),
    last_fault_at=st.floats(0, 4e9),
)


@given(ANY, st.floats(0, 4e9), st.floats(0, 1))
def test_the_answer_is_a_start_or_a_hold_that_ends(
    presence: Presence, now: float, jitter: float
) -> None:
    hold = _hold(presence, now, jitter)
    assert hold == _hold(presence, now, jitter)
    if hold is None:
        assert not presence.stopped
        assert not presence.connects_itself
        return
    waits_for_us = hold.reason in (HoldReason.WAKING, HoldReason.BROKEN)
    assert (hold.retry_s is not None) == waits_for_us
    if hold.retry_s is not None:
        most = SETTINGS.boot_backoff_max_s * (1 + rules.JITTER)
        assert 0 < hold.retry_s <= most + 1e-6
        assert presence.faults > 0
        assert (hold.reason == HoldReason.BROKEN) == (
            presence.faults >= SETTINGS.boots_before_broken
        )


@given(st.integers(1, 50), st.floats(-1e7, 1e7), st.floats(0, 1))
def test_a_jump_of_the_wall_clock_delays_a_start_by_one_back_off_at_most(
    faults: int, jump_s: float, jitter: float
) -> None:
    clock = FakeClock(NOW)
    presence = _presence(faults)
    clock.jump(jump_s)
    began = clock.monotonic()
    hold = _hold(presence, clock.now(), jitter)
    for _ in range(10):
        if hold is None:
            break
        assert hold.retry_s is not None
        clock.advance(hold.retry_s + 1e-6)
        hold = _hold(presence, clock.now(), jitter)
    limit = rules.backoff_s(faults, SETTINGS, jitter)
    assert hold is None
    assert clock.monotonic() - began <= limit + 1e-3


def test_two_peers_that_failed_together_do_not_come_back_together() -> None:
    answer = rules.bind(SETTINGS, seed=1)
    waits = {answer(_presence(faults=1), NOW) for _ in range(20)}
    assert len(waits) == 20
    assert all(isinstance(w, Hold) and w.retry_s is not None for w in waits)
    assert {1.6 <= (w.retry_s or 0) <= 2.4 for w in waits if isinstance(w, Hold)} == {True}


def test_every_phase_has_a_word_people_read() -> None:
    assert {p.value for p in asked.Phase} == {"asleep", "adopting", "booting", "live"}
