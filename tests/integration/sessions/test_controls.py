"""Interrupt and compact: what a person would do at the keyboard, and the proof that it was done."""

from __future__ import annotations

import asyncio

import pytest

from iapeer.core.errors import ControlRefused
from tests.integration.routing.house import WAIT_S, House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def _turn_ended(house: House, how: str) -> None:
    await until(lambda: [r for r in house.records("ann") if r.get("op") == "end"][-1:])
    await until(lambda: house.records("ann")[-1].get("status") == how)


@pytest.mark.requirement("launch:interrupt")
async def test_an_interrupt_ends_the_turn_and_the_next_message_comes() -> None:
    async with open_house("ann") as house:
        slow = await house.send("ann", "SLOW 60")
        await house.wait(slow.message_id, "seen")
        waiting = await house.send("ann", "NOTHING\nnext")
        assert await house.fleet.interrupt("ann", None) == "demo-ann"
        await house.wait(waiting.message_id, "seen")
        trace = await house.router.trace(slow.message_id)
        assert [turn.end for turn in trace.turns] == ["interrupted"]


async def test_two_quick_interrupts_press_the_key_once() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        pressed: list[str] = []
        keys = session.tmux.keys

        async def counted(*names: str) -> bool:
            pressed.extend(names)
            return await keys(*names)

        session.tmux.keys = counted  # type: ignore[method-assign]
        await house.fleet.interrupt("ann", None)
        await house.fleet.interrupt("ann", None)
        assert pressed == ["Escape"]


async def test_who_is_asleep_can_not_be_interrupted() -> None:
    async with open_house("ann") as house:
        with pytest.raises(ControlRefused, match="cannot interrupt demo-ann") as caught:
            await house.fleet.interrupt("ann", None)
        assert caught.value.code == "not_live"


@pytest.mark.requirement("launch:controls:service")
async def test_a_program_that_connects_by_itself_is_not_to_be_woken() -> None:
    async with open_house() as house:
        with pytest.raises(ControlRefused, match="cannot interrupt api-op") as away:
            await house.fleet.interrupt("op", None)
        assert away.value.code == "not_live"
        assert "connects by itself" in away.value.hint
        assert "wake" not in away.value.hint
        stream = house.inboxes.open(house.caller("api-op"))
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: house.lane("op", "api").session is not None)
        with pytest.raises(ControlRefused, match="does not support control command") as here:
            await house.fleet.interrupt("op", None)
        assert here.value.code == "unsupported"
        assert "no terminal" in here.value.hint
        reading.cancel()
        await asyncio.wait({reading})


@pytest.mark.requirement("launch:compact")
async def test_a_compaction_ends_by_the_programs_own_word_and_mail_waits_meanwhile() -> None:
    async with open_house("ann", misbehave="never_compacts") as house:
        await house.live("ann")
        wish = asyncio.create_task(house.fleet.compact("ann", None))
        await until(lambda: [r for r in house.records("ann") if r.get("type") == "command"])
        sent = await house.send("ann", "NOTHING\nlater")
        assert (sent.state, sent.reason) == ("held", "busy")
        assert not wish.done()
        # What the program would write down itself.
        folder = house.session("ann").transcript
        with open(folder, "a", encoding="utf-8") as record:  # noqa: PTH123 - one line
            record.write('{"type": "compact"}\n')
        assert await asyncio.wait_for(wish, WAIT_S) == ("demo-ann", False)
        await house.wait(sent.message_id, "seen")


async def test_a_compaction_waits_for_the_end_of_the_turn() -> None:
    async with open_house("ann") as house:
        slow = await house.send("ann", "SLOW 1")
        await house.wait(slow.message_id, "seen")
        assert await house.fleet.compact("ann", None) == ("demo-ann", False)
        kinds = [(r.get("type"), r.get("op")) for r in house.records("ann")]
        assert kinds.index(("turn", "end")) < kinds.index(("command", None))


async def test_a_program_that_has_nothing_to_compact_says_so() -> None:
    async with open_house("ann", misbehave="nothing_to_compact") as house:
        await house.live("ann")
        for _ in range(2):  # the words of the first time still stand on the screen
            with pytest.raises(ControlRefused) as caught:
                await house.fleet.compact("ann", None)
            assert caught.value.code == "nothing_to_compact"


async def test_a_compaction_without_an_end_is_given_up_and_mail_goes_on() -> None:
    async with open_house("ann", misbehave="never_compacts", compact_done_timeout_ms=400) as house:
        await house.live("ann")
        with pytest.raises(ControlRefused) as caught:
            await house.fleet.compact("ann", None)
        assert caught.value.code == "timeout"
        await house.live("ann")


async def test_a_stop_ends_a_compaction_at_once() -> None:
    async with open_house("ann", misbehave="never_compacts") as house:
        await house.live("ann")
        wish = asyncio.create_task(house.fleet.compact("ann", None))
        await until(lambda: [r for r in house.records("ann") if r.get("type") == "command"])
        # Far from the five minutes that a compaction gets.
        await asyncio.wait_for(house.fleet.stop("ann", None), WAIT_S)
        with pytest.raises(ControlRefused) as caught:
            await wish
        assert caught.value.code == "session_ended"


async def test_a_draft_is_not_sent_off_with_the_command() -> None:
    async with open_house("ann", compact_done_timeout_ms=600) as house:
        await house.live("ann")
        house.type("ann", "half a thought")
        await house.drawn("ann", "half a thought")
        with pytest.raises(ControlRefused):
            await house.fleet.compact("ann", None)
        assert house.composer("ann").endswith("half a thought")
        assert not [r for r in house.records("ann") if r.get("type") == "command"]


async def test_who_never_slept_has_nothing_to_compact() -> None:
    async with open_house("ann") as house:
        with pytest.raises(ControlRefused) as caught:
            await house.fleet.compact("ann", None)
        assert caught.value.code == "nothing_to_compact"
