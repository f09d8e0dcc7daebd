"""The plan is a function of its seed; bodies can be told apart from what became of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from iapeer.core.envelope import Envelope, encode, render_for_agent
from iapeer.core.identity import Intelligence
from iapeer.core.text import safe_text
from iapeer.testing.chaos.bodies import MARKER, body_of, number_in, read_prompt
from iapeer.testing.chaos.plan import DISTURBANCES, KILLS, fault_points, make_plan
from iapeer.testing.chaos.senders import read_answer


def prompt(body: str, dup: str | None = None, sender: str = "sender1") -> str:
    envelope = Envelope(
        from_personality=sender,
        from_runtime="api",
        from_intelligence=Intelligence.ABSENT,
        body=body,
        ts="2026-01-01T00:00:00+00:00",
        id="abcdefabcdef",
        dup=dup,
    )
    return safe_text(render_for_agent(encode(envelope), datetime(2026, 1, 1, tzinfo=UTC))).text


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    points = fault_points()
    assert make_plan(5, 40, points) == make_plan(5, 40, points)
    assert make_plan(5, 40, points) != make_plan(6, 40, points)


@pytest.mark.parametrize("kills", [1, 10, 300])
def test_a_plan_holds_its_kills_and_every_disturbance(kills: int) -> None:
    plan = make_plan(1, kills, fault_points())
    assert sum(step.is_kill for step in plan) == kills
    assert {step.kind for step in plan if not step.is_kill} == set(DISTURBANCES)
    assert all((step.kind == "fault") == bool(step.fault) for step in plan)


def test_a_long_plan_comes_to_every_fault_point() -> None:
    plan = make_plan(1, 300, fault_points())
    assert {step.fault for step in plan if step.fault} == set(fault_points())
    assert {step.kind for step in plan} == {*KILLS, *DISTURBANCES}


def test_fault_points_are_those_of_the_source() -> None:
    points = fault_points()
    assert {"ledger.commit", "paste.after_paste", "delivery.landed", "launch.born"} <= set(points)
    assert not [point for point in points if point.startswith("rename.")]


@pytest.mark.parametrize("number", range(1, 60))
def test_every_body_is_recognised_in_the_envelope_an_agent_gets(number: int) -> None:
    assert number_in(body_of(number)) == number
    found = read_prompt(prompt(body_of(number)))
    assert found == ("abcdefabcdef", "api-sender1", False, number, True)
    assert read_prompt(prompt(body_of(number), dup="maybe"))[2] is True


def test_what_is_cut_merged_or_typed_beside_a_message_is_damaged() -> None:
    one, two = prompt(body_of(1)), prompt(body_of(2))
    for text in (one + two, "typed " + one, one[: len(one) // 2], body_of(1)):
        assert read_prompt(text)[4] is False
    changed = prompt(body_of(1).replace(MARKER, f"x {MARKER}"))
    assert read_prompt(changed)[3:] == (1, False)


def test_a_notice_of_the_core_is_no_showing_of_what_it_quotes() -> None:
    notice = prompt(f"delivery failed: message x. It began: {body_of(7)[:40]}", sender="iapeer")
    assert read_prompt(notice)[3:] == (0, True)


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (200, {"ok": True, "message_id": "a", "state": "landed"}, "ok"),
        (409, {"ok": False, "error": {"code": "stopped"}}, "refused"),
        (409, {"ok": False, "error": {"code": "failed"}}, "unknown"),
        (503, {"ok": False, "error": {"code": "busy"}}, "unknown"),
        (500, {"ok": False, "error": {"code": "disk_full"}}, "unknown"),
        (200, "what?", "unknown"),
    ],
)
def test_only_a_clear_refusal_counts_as_refused(status: int, answer: object, outcome: str) -> None:
    assert read_answer(status, answer).outcome == outcome
