"""Interrupt and compact: what a person would do at the keyboard, and the proof that it was done."""

from __future__ import annotations

import asyncio

import pytest

from iapeer.core.errors import ControlRefused
from iapeer.routing.lanes.givenback import GivenBack
from iapeer.sessions.tmux.options import INTERRUPTED
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


async def _given_back(house: House, *more: str) -> str:
    """Interrupt a turn that has said nothing yet; returns its message's id."""
    cut = await house.send("ann", "\n".join([f"HOLD {house.go}", *more]))
    await house.wait(cut.message_id, "seen")
    await house.fleet.interrupt("ann", None)
    return cut.message_id


async def _ends(house: House, message_id: str) -> list[str]:
    return [turn.end for turn in (await house.router.trace(message_id)).turns]


async def _ended(house: House, message_id: str) -> None:
    async def look() -> bool:
        return await _ends(house, message_id) == ["interrupted"]

    await until(look, "the turn to be told as interrupted")


def _lifecycle(house: House) -> str:
    return house.paths.lifecycle_log.read_text(encoding="utf-8")


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_a_prompt_that_our_interrupt_gives_back_is_cleared_and_the_next_message_comes() -> (
    None
):
    async with open_house("ann", misbehave="gives_back") as house:
        cut = await _given_back(house, "NOTHING")
        following = await house.send("ann", "NOTHING\nnext")
        assert following.state != "held"
        await house.wait(following.message_id, "seen")
        await _ended(house, cut)
        assert house.composer("ann") == ""
        assert (await house.row(cut)).state == "seen"
        assert _lifecycle(house).count("ev=given-back") == 1
        assert house.bodies("ann")[1:] == ["NOTHING\nnext"]


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_what_a_persons_own_key_gives_back_is_left_to_the_person() -> None:
    async with open_house("ann", misbehave="gives_back") as house:
        cut = await house.send("ann", f"HOLD {house.go}")
        await house.wait(cut.message_id, "seen")
        house.type("ann", "", "Escape")
        await until(lambda: house.composer("ann").startswith("<iap "), "the words to be drawn")
        held = await house.send("ann", "NOTHING\nnext")
        assert (held.state, held.reason) == ("held", "composer")
        # A daemon that comes later does not take it for its own.
        await house.close()
        await house.start()
        await until(lambda: house.lane("ann").session is not None, "the session to be adopted")
        later = await house.send("ann", "NOTHING\nlater")
        await house.wait(later.message_id, "composer")
        assert house.composer("ann").startswith("<iap ")
        house.type("ann", "", "C-u")
        await house.wait(held.message_id, "seen")


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_words_that_were_changed_before_the_look_are_a_persons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", misbehave="gives_back") as house:
        cut = await house.send("ann", f"HOLD {house.go}")
        await house.wait(cut.message_id, "seen")
        keys = house.session("ann").tmux.keys
        typed = "mine"

        async def and_a_person(*names: str) -> bool:
            done = await keys(*names)
            await until(lambda: house.composer("ann").startswith("<iap "), "the words")
            house.type("ann", typed)
            await until(lambda: typed in _screen(house), "the person's words")
            return done

        monkeypatch.setattr(house.session("ann").tmux, "keys", and_a_person)
        await house.fleet.interrupt("ann", None)
        held = await house.send("ann", "NOTHING\nnext")
        await house.wait(held.message_id, "composer")
        assert typed in _screen(house)
        assert "ev=given-back" not in _lifecycle(house)
        house.type("ann", "", "C-u")
        await house.wait(held.message_id, "seen")


def _screen(house: House) -> str:
    return house.tmux("ann", "capture-pane", "-p", "-t", "=demo-ann:")


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_a_draft_from_before_the_interrupt_is_not_touched() -> None:
    async with open_house("ann", misbehave="gives_back") as house:
        cut = await house.send("ann", f"HOLD {house.go}")
        await house.wait(cut.message_id, "seen")
        house.type("ann", "half a thought")
        await house.drawn("ann", "half a thought")
        await house.fleet.interrupt("ann", None)
        held = await house.send("ann", "NOTHING\nnext")
        assert (held.state, held.reason) == ("held", "composer")
        assert house.composer("ann") == "half a thought"


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_a_daemon_that_ends_right_after_the_key_leaves_the_clearing_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", misbehave="gives_back") as house:
        cut = (await house.send("ann", f"HOLD {house.go}")).message_id
        await house.wait(cut, "seen")
        with monkeypatch.context() as patch:

            async def not_yet(*_: object) -> float:
                return WAIT_S

            patch.setattr(GivenBack, "go_on", not_yet)
            await house.fleet.interrupt("ann", None)
            await until(lambda: house.composer("ann").startswith("<iap "), "the words")
            await house.close()
        await house.start()
        await _ended(house, cut)
        assert house.composer("ann") == ""
        following = await house.send("ann", "NOTHING\nnext")
        await house.wait(following.message_id, "seen")
        # The note is away: what a person brings back from now on is the person's.
        assert not await house.session("ann").tmux.option(INTERRUPTED)
