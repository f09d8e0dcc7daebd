"""A paste that stays in the composer though it was read holds nothing up; a person's is theirs."""

from __future__ import annotations

import pytest

from iapeer.sessions.doors import leftover
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.screen import Composer
from iapeer.sessions.tmux.options import LEFT
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]

KEEPS = "keeps_paste"
CHIP = "[Pasted text #1 +3 lines]"


async def _left(house: House, monkeypatch: pytest.MonkeyPatch, text: str = "NOTHING\none") -> str:
    """A message was read and its placeholder noted, but nobody has erased that yet."""

    async def not_now(_session: TmuxSession, _composer: Composer) -> bool:
        return False

    monkeypatch.setattr(leftover, "look", not_now)
    sent = await house.send("ann", text)
    await house.wait(sent.message_id, "seen")
    await until(lambda: house.session("ann").left, "the placeholder to be noted")
    assert house.composer("ann").startswith("[Pasted text #1")
    return sent.message_id


@pytest.mark.requirement("delivery:submit:left")
@pytest.mark.parametrize("misbehave", [KEEPS, f"{KEEPS}=front"], ids=["behind", "before"])
async def test_messages_follow_one_whose_paste_stays_and_each_is_read_once(misbehave: str) -> None:
    """Wherever the cursor is left: Claude Code leaves it behind the placeholder, or before it."""
    async with open_house("ann", misbehave=misbehave) as house:
        for text in ("NOTHING\none", "NOTHING\ntwo"):
            sent = await house.send("ann", text)
            row = await house.wait(sent.message_id, "seen")
            assert (row.attempt, row.dup) == (1, False)
        assert house.bodies("ann") == ["NOTHING\none", "NOTHING\ntwo"]
        await until(lambda: house.composer("ann") == "", "the composer to be empty")
        assert house.session("ann").left == ""


async def test_it_is_erased_while_a_turn_runs_and_the_turn_goes_on() -> None:
    async with open_house("ann", misbehave=KEEPS) as house:
        go = house.base / "go"
        held = await house.send("ann", f"HOLD {go}")
        await house.wait(held.message_id, "seen")
        after = await house.send("ann", "NOTHING\nafter")
        await house.wait(after.message_id, "landed")
        assert not any(record.get("op") == "end" for record in house.records("ann"))
        go.touch()
        await house.wait(after.message_id, "seen")
        assert house.bodies("ann") == [f"HOLD {go}", "NOTHING\nafter"]


@pytest.mark.requirement("delivery:submit:left")
async def test_what_a_person_adds_to_it_or_pastes_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", misbehave=KEEPS) as house:
        with monkeypatch.context() as patched:
            await _left(house, patched)
            house.type("ann", " and mine")
            await until(lambda: house.composer("ann").endswith("mine"), "it to be drawn")
        sent = await house.send("ann", "NOTHING\nafter")
        assert (sent.state, sent.reason) == ("held", "composer")
        await house.wait(sent.message_id, "composer")
        assert house.composer("ann").endswith("and mine")
        house.type("ann", "", "C-u")
        await house.wait(sent.message_id, "seen")
        # Its own placeholder, which it keeps as well, is erased; the next one is a person's.
        await until(lambda: house.composer("ann") == "", "the composer to be empty")
        await house.session("ann").tmux.paste(b"1\n2\n3\n4", buffer="person", marker="person-1")
        await until(lambda: house.composer("ann"), "the paste to be drawn")
        theirs = house.composer("ann")
        last = await house.send("ann", "NOTHING\nlast")
        assert (last.state, last.reason) == ("held", "composer")
        assert house.composer("ann") == theirs


async def test_it_is_not_erased_before_the_program_has_told_that_it_has_the_message() -> None:
    async with open_house("ann", misbehave="swallow_enter=400,no_hook", evidence_s=20.0) as house:
        sent = await house.send("ann", "NOTHING\none")
        await until(lambda: house.session("ann").left, "the placeholder to be noted")
        assert (await house.row(sent.message_id)).state == "in_flight"
        session, shown = house.session("ann"), house.composer("ann")
        assert shown.startswith("[Pasted text #1")
        assert not await leftover.look(session, Composer("paste_chip", shown))
        assert house.composer("ann") == shown


async def test_a_daemon_that_comes_after_erases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house("ann", misbehave=KEEPS) as house:
        with monkeypatch.context() as patched:
            await _left(house, patched)
            await house.close()
        await house.start()
        sent = await house.send("ann", "NOTHING\ntwo")
        await house.wait(sent.message_id, "seen")
        assert house.bodies("ann") == ["NOTHING\none", "NOTHING\ntwo"]


async def test_one_that_was_gone_meanwhile_and_is_called_back_is_a_persons() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        session.proven.append("abc")
        await leftover.note(session, "abc-1", Composer("paste_chip", CHIP))
        assert await session.tmux.option(LEFT) == f"abc-1 {CHIP}"
        assert not await leftover.look(session, Composer("empty"))
        assert not await leftover.look(session, Composer("paste_chip", CHIP))
        assert not await session.tmux.option(LEFT)


async def test_the_key_is_pressed_once() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        session.proven.append("abc")
        await leftover.note(session, "abc-1", Composer("paste_chip", CHIP))
        assert await leftover.look(session, Composer("paste_chip", CHIP))
        assert not await leftover.look(session, Composer("paste_chip", CHIP))
