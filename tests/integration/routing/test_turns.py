"""How a turn ends decides what happens to the messages it had read; senders are told once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest

from iapeer.core.errors import SendRefused
from iapeer.core.states import TurnEnd
from iapeer.routing.lanes.journal import Journal
from iapeer.routing.lanes.letters import Observed
from iapeer.sessions.evidence import Fact
from iapeer.storage.ledger import turns
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def _ends(house: House, message_id: str) -> list[str]:
    found = await house.services.ledger.read(lambda c: turns.turns_of(c, message_id))
    return [turn.turn_end for turn in found]


async def test_a_finished_turn_is_recorded_and_ends_our_duty() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann")
        await house.wait(sent.message_id, "seen")

        async def done() -> bool:
            return await _ends(house, sent.message_id) == ["done"]

        await until(done)
        session = house.session("ann")
        os.kill(session.pane[0], signal.SIGKILL)
        await until(lambda: house.lane("ann").session is None)
        assert (await house.row(sent.message_id)).state == "seen"


async def test_an_end_that_waits_for_the_ledger_is_none_of_the_turn_that_begins_meanwhile() -> None:
    begun: list[Fact] = []
    taken: list[Fact] = []
    gate = asyncio.Event()
    take = Journal.take

    async def slow(
        self: Journal, session_id: str, facts: Sequence[Fact], offset: int | None
    ) -> Any:
        begun.extend(facts)
        await gate.wait()
        made = await take(self, session_id, facts, offset)
        taken.extend(facts)
        return made

    async with open_house("ann") as house:
        session = await house.live("ann")
        first = await house.send("ann", f"HOLD {house.go}")
        await house.wait(first.message_id, "seen")
        second = await house.send("ann", "SLOW 60")
        await house.wait(second.message_id, "landed")
        with mock.patch.object(Journal, "take", slow):
            prompt = Fact("user", ("a" * 12,), source="hook UserPromptSubmit")
            stop = Fact("turn_end", status=TurnEnd.DONE, source="hook Stop")
            lane = house.lane("ann")
            lane.observe(Observed(session.id, (prompt,)))
            await until(lambda: begun, "the lane to be at the ledger")
            lane.observe(Observed(session.id, (stop,)))
            house.go.touch()

            def told() -> bool:
                seen = [r for r in lane.box.reports if isinstance(r, Observed) and r.offset]
                return any(second.message_id in fact.ids for r in seen for fact in r.facts)

            await until(told, "the record to tell of the next turn")
            gate.set()
            await house.wait(second.message_id, "seen")
            await until(lambda: stop in taken, "the end to be taken")
        assert await _ends(house, first.message_id) == ["done"]
        assert await _ends(house, second.message_id) == [""]


async def test_a_message_whose_turn_died_comes_once_more_marked_and_then_fails() -> None:
    async with open_house("ann", "bob") as house:
        await house.live("bob")
        sent = await house.send("ann", "SLOW 60", sender="demo-bob")
        await house.wait(sent.message_id, "seen")
        os.kill(house.session("ann").pane[0], signal.SIGKILL)
        await until(lambda: len(house.prompts("ann")) == 2)
        await house.wait(sent.message_id, "seen")
        os.kill(house.session("ann").pane[0], signal.SIGKILL)
        await house.wait(sent.message_id, "failed")
        first, second = house.prompts("ann")
        assert "dup=" not in first
        assert 'dup="maybe"' in second
        assert await _ends(house, sent.message_id) == ["died", "died"]
        await until(lambda: any("delivery failed" in p for p in house.prompts("bob")))


async def test_an_answered_message_is_not_shown_again_when_the_session_dies() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", "REPLY thanks\nSLOW 60")
        await house.wait(sent.message_id, "seen")

        async def answered() -> bool:
            return bool((await house.row(sent.message_id)).answered_by)

        await until(answered)
        os.kill(house.session("ann").pane[0], signal.SIGKILL)
        await until(lambda: house.lane("ann").session is None)
        assert (await house.row(sent.message_id)).state == "seen"


async def test_a_deliberate_stop_in_mid_turn_leaves_the_message_seen() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", "SLOW 60")
        await house.wait(sent.message_id, "seen")
        await house.fleet.stop("ann", None)
        assert (await house.row(sent.message_id)).state == "seen"
        assert await _ends(house, sent.message_id) == ["unknown"]


async def test_an_unanswered_turn_that_died_unwatched_comes_back_marked() -> None:
    async with open_house("ann") as house:
        sent = await house.send("ann", "SLOW 60")
        await house.wait(sent.message_id, "seen")
        pane = house.session("ann").pane
        await house.close()
        os.kill(pane[0], signal.SIGKILL)
        await house.start()
        await until(lambda: len(house.prompts("ann")) == 2)
        assert 'dup="maybe"' in house.prompts("ann")[1]


async def test_after_an_api_error_new_messages_wait_and_the_reader_is_told_to_carry_on() -> None:
    async with open_house("ann", api_error_hold_s=4.0) as house:
        await house.live("ann")
        failed = await house.send("ann", "APIERROR")
        await house.wait(failed.message_id, "seen")

        async def ended() -> bool:
            return await _ends(house, failed.message_id) == ["api_error"]

        await until(ended)
        later = await house.send("ann", "NOTHING\nlater")
        assert (later.state, later.reason) == ("held", "api_error")
        await house.wait(later.message_id, "seen")
        await until(lambda: any("carry on" in p for p in house.prompts("ann")))
        prompts = house.prompts("ann")
        assert sum("APIERROR" in p for p in prompts) == 1
        (carry,) = [p for p in prompts if "carry on" in p]
        assert failed.message_id in carry
        assert 'from="iapeer" runtime="core"' in carry


async def test_the_pause_after_an_api_error_outlives_the_daemon() -> None:
    async with open_house("ann", api_error_hold_s=30.0) as house:
        await house.live("ann")
        failed = await house.send("ann", "APIERROR")

        async def ended() -> bool:
            return await _ends(house, failed.message_id) == ["api_error"]

        await until(ended)
        await house.close()
        await house.start()
        await until(lambda: house.lane("ann").phase == "live")
        later = await house.send("ann")
        assert (later.state, later.reason) == ("held", "api_error")


async def test_a_half_typed_draft_holds_a_hundred_messages_with_one_notice() -> None:
    async with open_house("ann", "bob", composer_timeout_ms=300, notice_coalesce_s=30.0) as house:
        await house.live("ann")
        await house.live("bob")
        draft = "half typed ünd ñot sent"
        house.type("ann", draft)
        await house.drawn("ann", draft)
        ids = [
            (await house.send("ann", f"NOTHING\n{n}", sender="demo-bob")).message_id
            for n in range(100)
        ]
        for message_id in (ids[0], ids[-1]):
            row = await house.row(message_id)
            assert (row.state, row.reason) == ("held", "composer")
        await until(lambda: any("still waiting" in p for p in house.prompts("bob")))
        assert house.composer("ann") == draft
        house.type("ann", "", "Enter")
        await house.wait(ids[-1], "seen", timeout_s=60)
        bodies = house.bodies("ann")
        assert bodies[1] == draft
        assert bodies[2:] == [f"NOTHING\n{n}" for n in range(100)]
        notices = [p for p in house.prompts("bob") if "still waiting" in p]
        assert len(notices) == 1
        assert "do not resend" in notices[0]


async def test_many_failures_of_one_sender_are_one_notice() -> None:
    async with open_house("ann") as house:
        house.create("svc", runtime="api")
        for n in range(30):
            await house.send("svc", f"message {n}", sender="demo-ann")
        await house.fleet.remove("svc", force=False)
        await house.live("ann")
        await until(lambda: any("delivery failed" in p for p in house.prompts("ann")))
        notices = [p for p in house.prompts("ann") if "delivery failed" in p]
        assert len(notices) == 1
        assert "30 messages" in notices[0]


async def test_a_failure_nobody_was_told_of_is_told_after_the_next_start() -> None:
    async with open_house("ann") as house:
        house.create("svc", runtime="api")
        sent = await house.send("svc", "lost in a crash?", sender="demo-ann")
        # As a kill right after the commit would leave it.
        await house.services.ledger.write(
            lambda c: (
                c.execute(
                    "UPDATE messages SET state = 'failed', reason = 'test' WHERE id = ?",
                    (sent.message_id,),
                ).rowcount
            )
        )
        await house.close()
        await house.start()
        await house.live("ann")
        await until(lambda: any("delivery failed" in p for p in house.prompts("ann")))


async def test_a_notice_answered_is_refused_once_and_starts_no_talk() -> None:
    async with open_house("ann") as house:
        with pytest.raises(SendRefused, match="core itself"):
            await house.send("iapeer", "thanks", sender="demo-ann")
        assert await house.count() == 0


async def test_messages_inherit_the_depth_of_what_was_read() -> None:
    async with open_house("ann", "bob", depth_limit=6, depth_interval_s=600.0) as house:
        await house.live("ann")
        await house.live("bob")
        await house.send("ann", "PINGPONG 50", sender="demo-bob")
        await until(
            lambda: [r for n in ("ann", "bob") for r in house.records(n) if r.get("is_error")]
        )

        errors = [r for n in ("ann", "bob") for r in house.records(n) if r.get("is_error")]
        assert "once per 600 s" in str(errors[0]["result"])
        deepest = await house.services.ledger.read(
            lambda c: c.execute("SELECT max(depth) FROM messages").fetchone()[0]
        )
        # One message of each direction beyond the limit passes, then the pair waits.
        assert 7 <= deepest <= 8
        sent = await house.send("ann", "NOTHING", sender="api-op")
        assert (await house.row(sent.message_id)).depth == 0
