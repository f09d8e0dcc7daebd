"""Guards refuse with a code and a time; what they let pass they count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iapeer.core.clock import FakeClock
from iapeer.core.errors import SendRefused
from iapeer.core.settings import Settings, make_settings
from iapeer.routing.guards import Attempt, Bucket, Guards
from iapeer.storage.ledger.rows import NewMessage


def _settings(**changes: Any) -> Settings:
    return make_settings({"HOME": "/h", "IAPEER_ROOT": "/r"}, flags=changes)


def _message(body: str = "hi", **changes: Any) -> NewMessage:
    fields: dict[str, Any] = {
        "id": "a" * 12,
        "sender": "demo-ann",
        "sender_uid": "",
        "to_uid": "u",
        "personality": "bob",
        "runtime": "demo",
        "body": body,
        "accepted_ts": "",
        "expires_at": 0.0,
        "path": "mcp",
        "intelligence": "artificial",
        **changes,
    }
    return NewMessage(**fields)


class _House:
    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.told: list[Attempt] = []
        self.guards = Guards(_settings(**changes), self.clock, self.told.append)

    def passes(self, **message: Any) -> bool:
        try:
            self.guards.admit(_message(**message))
        except SendRefused:
            return False
        return True

    def refusal(self, **message: Any) -> SendRefused:
        with pytest.raises(SendRefused) as refused:
            self.guards.admit(_message(**message))
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 0
        return refused.value


def test_a_pair_may_burst_and_then_goes_at_the_refill_rate() -> None:
    house = _House(pair_bucket=3.0, pair_refill=2.0)
    assert [house.passes(body=str(n)) for n in range(4)] == [True, True, True, False]
    refusal = house.refusal(body="x")
    assert (refusal.code, refusal.retry_after_s) == ("rate_limited", 0.5)
    assert house.passes(body="y", sender="demo-eve")
    house.clock.advance(0.5)
    assert house.passes(body="z")
    assert not house.passes(body="zz")


def test_the_host_has_a_bucket_of_its_own() -> None:
    house = _House(host_bucket=2.0, host_refill=1.0)
    assert house.passes(sender="demo-a")
    assert house.passes(sender="demo-b")
    assert house.refusal(sender="demo-c").code == "host_busy"


def test_a_refused_message_costs_no_token_of_another_guard() -> None:
    house = _House(pair_bucket=1.0, pair_refill=0.01, host_bucket=2.0, host_refill=0.01)
    assert house.passes(body="1")
    for n in range(20):
        assert house.refusal(body=str(n)).code == "rate_limited"
    assert house.passes(body="2", sender="demo-eve")


def test_the_same_words_pass_five_times_a_minute_and_programs_may_repeat() -> None:
    house = _House()
    assert [house.passes(body="tick") for _ in range(6)] == [True] * 5 + [False]
    refusal = house.refusal(body="tick")
    assert refusal.code == "repeated"
    assert house.passes(body="tock")
    assert house.passes(body="tick", personality="carl")
    assert all(house.passes(body="tick", intelligence="absent") for _ in range(20))
    house.clock.advance(float(refusal.retry_after_s or 0) + 0.01)
    assert house.passes(body="tick")


def test_beyond_the_depth_a_pair_slows_down_and_the_operator_is_told_once() -> None:
    house = _House(depth_limit=200, depth_interval_s=60.0)
    assert all(house.passes(body=str(n), depth=200) for n in range(10))
    assert house.passes(body="a", depth=201)
    assert house.refusal(body="b", depth=202).code == "too_deep"
    house.clock.advance(60)
    assert house.passes(body="c", depth=203)
    assert [attempt.depth for attempt in house.told] == [201]
    assert house.passes(body="d", depth=0)
    assert house.passes(body="e", depth=201)


def test_a_clock_jump_of_the_wall_changes_no_guard() -> None:
    house = _House(pair_bucket=1.0, pair_refill=1.0)
    assert house.passes(body="1")
    house.clock.jump(-86_400)
    assert house.refusal(body="2").retry_after_s == 1.0
    house.clock.jump(10 * 86_400)
    assert not house.passes(body="3")


@given(
    size=st.floats(1, 50),
    refill=st.floats(0.1, 50),
    gaps=st.lists(st.floats(0, 5), max_size=60),
)
def test_a_bucket_never_gives_more_than_it_holds_and_refills(
    size: float, refill: float, gaps: list[float]
) -> None:
    now = 1000.0
    bucket = Bucket(size, refill, now)
    taken = 0
    for gap in gaps:
        now += gap
        if bucket.wait_s(now) == 0.0:
            bucket.take(now)
            taken += 1
        assert taken <= size + refill * (now - 1000.0) + 1e-6
        wait = bucket.wait_s(now)
        assert bucket.wait_s(now + wait + 1e-6) == 0.0


def test_the_defaults_are_the_documented_ones() -> None:
    settings = _settings()
    assert (settings.pair_bucket, settings.pair_refill) == (300, 2)
    assert (settings.host_bucket, settings.host_refill) == (10_000, 500)
    assert (settings.queue_limit, settings.repeat_limit, settings.repeat_window_s) == (5000, 5, 60)
    assert settings.depth_limit == 200
    assert settings.root == Path("/r")
