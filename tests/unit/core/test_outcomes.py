from __future__ import annotations

import pytest

from iapeer.core.outcomes import SendResult
from iapeer.core.states import HoldReason, MessageState


def _result(state: MessageState, **more: object) -> SendResult:
    return SendResult(
        message_id="abcdefghijkl",
        personality="ann",
        runtime="demo",
        state=state,
        ts="2026-11-22T15:00:00+01:00",
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("state", [MessageState.LANDED, MessageState.SEEN])
def test_a_delivered_message_is_told_in_the_contracts_shape(state: MessageState) -> None:
    assert _result(state, woke=True, queue_depth=9).to_json() == {
        "ok": True,
        "delivered_to": {"personality": "ann", "runtime": "demo"},
        "woke": True,
        "ts": "2026-11-22T15:00:00+01:00",
        "message_id": "abcdefghijkl",
        "state": state.value,
    }


def test_a_waiting_message_is_queued_with_its_reason() -> None:
    body = _result(MessageState.HELD, reason=HoldReason.BUSY, queue_depth=3).to_json()
    assert body["ok"] is True
    assert (body["queued"], body["state"], body["reason"]) == (True, "held", "busy")
    assert body["queueDepth"] == 3
    assert "queuedBy" not in body


def test_a_wait_for_a_person_names_the_composer() -> None:
    body = _result(MessageState.HELD, reason=HoldReason.COMPOSER).to_json()
    assert body["queuedBy"] == "composer"


@pytest.mark.parametrize("state", MessageState)
def test_queued_is_said_exactly_when_delivered_may_not_be(state: MessageState) -> None:
    result = _result(state)
    assert ("queued" in result.to_json()) != result.delivered
    assert result.delivered == (state in ("landed", "seen"))


def test_a_repeated_call_says_so_and_only_that_one() -> None:
    assert _result(MessageState.SEEN, repeated=True).to_json()["repeated"] is True
    assert "repeated" not in _result(MessageState.SEEN).to_json()
