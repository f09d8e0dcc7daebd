"""The window and its waits go by the monotonic clock: a wall clock that jumps stops nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from iapeer.core.clock import FakeClock
from iapeer.core.settings import make_settings
from iapeer.core.states import MessageState
from iapeer.routing.lanes.delivery import Deliverer, marker_of

SETTINGS = make_settings({"HOME": "/h"}, {"evidence_s": 10.0})


def _row(n: int, state: MessageState = MessageState.LANDED, attempt: int = 1) -> Any:
    return SimpleNamespace(id=f"m{n}", state=state, attempt=attempt, changed_at=0.0)


@pytest.mark.parametrize("jump_s", [-3600.0, 0.0, 3600.0])
def test_a_wait_for_proof_lasts_as_long_as_it_lasts(jump_s: float) -> None:
    clock = FakeClock()
    deliverer = Deliverer(
        SimpleNamespace(),  # type: ignore[arg-type]
        SimpleNamespace(clock=clock, settings=SETTINGS),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    assert deliverer._waited_s([_row(1)]) == 0
    clock.advance(4)
    clock.jump(jump_s)
    assert deliverer._waited_s([_row(1)]) == pytest.approx(4)
    # Another step, another attempt and another message each begin anew; the oldest counts.
    assert deliverer._waited_s([_row(1, MessageState.IN_FLIGHT)]) == 0
    clock.advance(1)
    assert deliverer._waited_s([_row(1, MessageState.IN_FLIGHT), _row(2)]) == pytest.approx(1)
    assert deliverer._waited_s([_row(1, attempt=2)]) == 0


@pytest.mark.anyio
async def test_a_new_session_begins_anew() -> None:
    clock = FakeClock()
    deliverer = Deliverer(
        SimpleNamespace(),  # type: ignore[arg-type]
        SimpleNamespace(clock=clock, settings=SETTINGS),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    deliverer._waited_s([_row(1)])
    clock.advance(9)
    session = SimpleNamespace(id="s")
    await deliverer.begin(
        session,  # type: ignore[arg-type]
        ephemeral=False,
        seed_alone=False,
        for_people=False,
    )
    assert deliverer._waited_s([_row(1)]) == 0


def test_a_marker_names_message_and_attempt() -> None:
    assert marker_of(_row(7, attempt=3)) == "m7-3"
