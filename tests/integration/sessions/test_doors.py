"""How text gets into a runtime: never into a person's draft, never half, never out of order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from iapeer.runtimes.catalog import SHIPPED
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


@pytest.mark.requirement("delivery:submit:again")
async def test_a_swallowed_enter_is_pressed_again() -> None:
    async with open_house("ann", misbehave="swallow_enter=2") as house:
        sent = await house.send("ann", "NOTHING\nhello")
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        assert house.bodies("ann") == ["NOTHING\nhello"]


@pytest.mark.requirement("delivery:submit:again")
async def test_enters_swallowed_beyond_the_doors_patience_are_pressed_on_by_the_lane() -> None:
    async with open_house("ann", misbehave="swallow_enter=5", evidence_s=10.0) as house:
        sent = await house.send("ann", "NOTHING\nhello")
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        assert house.bodies("ann") == ["NOTHING\nhello"]


@pytest.mark.requirement("delivery:submit:again")
@pytest.mark.parametrize("late", ["late_enter=1.6", "late_clear=1.2"])
async def test_no_enter_follows_one_that_is_not_read_yet_or_whose_message_was_read(
    late: str,
) -> None:
    async with open_house("ann", misbehave=late, evidence_s=10.0) as house:
        sent = await house.send("ann", "NOTHING\nhello")
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        again = await house.send("ann", "NOTHING\nafter")
        await house.wait(again.message_id, "seen")
        assert house.bodies("ann") == ["NOTHING\nhello", "NOTHING\nafter"]


@pytest.mark.requirement("delivery:submit:again")
async def test_a_session_that_begins_later_is_looked_at_as_the_first_one() -> None:
    async with open_house("ann", "bob", misbehave="late_enter=1.6", evidence_s=10.0) as house:
        # The second one gets a terminal with a number that nobody had when the first was looked at.
        taken: list[int] = []
        try:
            for name in ("ann", "bob"):
                for text in ("NOTHING\nhello", "NOTHING\nafter"):
                    sent = await house.send(name, text)
                    await house.wait(sent.message_id, "seen")
                assert house.bodies(name) == ["NOTHING\nhello", "NOTHING\nafter"]
                taken += [end for _ in range(32) for end in os.openpty()]
        finally:
            for end in taken:
                os.close(end)


@pytest.mark.requirement("delivery:submit:again")
async def test_what_an_earlier_attempt_proved_keeps_no_swallowed_enter_from_being_pressed() -> None:
    async with open_house("ann", misbehave="swallow_enter=1") as house:
        await house.fleet.wake("ann", "demo")
        session = house.session("ann")
        row = await house.accept("ann", "NOTHING\nagain")
        session.proven.append(row)
        house.lane("ann").work()
        await house.wait(row, "seen")
        assert house.bodies("ann") == ["NOTHING\nagain"]


DRAFT = "half a thought: $(id) 'quoted'"


@pytest.mark.requirement("delivery:composer:draft", "delivery:composer:ceiling")
async def test_a_draft_is_never_touched_and_messages_follow_it_in_order() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.type("ann", DRAFT)
        await house.drawn("ann", DRAFT)
        sent = [await house.send("ann", f"NOTHING\n{n}") for n in range(3)]
        assert {(s.state, s.reason) for s in sent} == {("held", "composer")}
        assert sent[0].to_json()["queuedBy"] == "composer"
        # Several polls go by; the draft is as it was.
        lane = house.lane("ann")
        await asyncio.sleep(0.5)
        assert lane.session is not None
        assert house.composer("ann") == DRAFT
        house.type("ann", "", "Enter")
        for one in sent:
            await house.wait(one.message_id, "seen")
        assert house.bodies("ann")[1:] == [DRAFT, *(f"NOTHING\n{n}" for n in range(3))]
        assert {(await house.row(s.message_id)).attempt for s in sent} == {1}


async def test_a_draft_begun_while_messages_wait_behind_a_turn_is_not_touched() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        slow = await house.send("ann", "SLOW 0.6")
        await house.wait(slow.message_id, "seen")
        house.type("ann", DRAFT)
        await house.drawn("ann", DRAFT)
        sent = await house.send("ann", "NOTHING\nafter")
        assert (sent.state, sent.reason) == ("held", "composer")
        await until(lambda: any(r.get("op") == "end" for r in house.records("ann")[-2:]))
        assert house.composer("ann") == DRAFT
        house.type("ann", "", "Enter")
        await house.wait(sent.message_id, "seen")
        assert house.bodies("ann")[-2:] == [DRAFT, "NOTHING\nafter"]


async def test_a_draft_that_starts_between_the_look_and_the_paste_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal's fsync stands between the two; a person types on meanwhile."""
    async with open_house("ann") as house:
        await house.live("ann")
        journal = house.lane("ann").journal
        begin = type(journal).begin

        async def slow_disk(self: object, *args: object, **more: object) -> int:
            if house.composer("ann") == "":
                house.type("ann", DRAFT)
                await house.drawn("ann", DRAFT)
            return await begin(self, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(type(journal), "begin", slow_disk)
        sent = await house.send("ann", "NOTHING\nlater")
        assert not sent.delivered
        monkeypatch.undo()
        await house.wait(sent.message_id, "composer")
        assert house.composer("ann") == DRAFT
        house.type("ann", "", "Enter")
        await house.wait(sent.message_id, "seen")
        assert house.bodies("ann")[1:] == [DRAFT, "NOTHING\nlater"]
        assert not (await house.row(sent.message_id)).dup


async def test_a_draft_is_not_submitted_by_the_second_look_at_an_unproven_attempt() -> None:
    """Entered before a crash; a person writes before the next daemon looks."""
    async with open_house("ann", misbehave="no_transcript,no_hook") as house:
        await house.live("ann")
        await until(lambda: house.composer("ann") == "")
        lane, session = house.lane("ann"), house.session("ann")
        lost = await house.accept("ann", "NOTHING\nentered")
        row = await house.row(lost)
        await lane.journal.begin(row, session.id, "paste")
        # What a daemon that was killed right after its Enter leaves in the server.
        await session.tmux.set_option("@iap_pasted", f"{lost}-1")
        await session.tmux.set_option("@iap_entered", f"{lost}-1")
        house.type("ann", DRAFT)
        await house.drawn("ann", DRAFT)
        await house.close()
        await house.start()
        await until(lambda: house.lane("ann").phase == "live")
        await asyncio.sleep(1.2)
        assert house.composer("ann") == DRAFT
        house.type("ann", "", "C-u")
        row = await house.wait(lost, "landed")
        assert row.dup or row.attempt == 1


async def test_a_dialog_over_the_composer_holds_until_it_is_gone() -> None:
    async with open_house("ann") as house:
        await house.close()
        text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
        house.runtime("demo", text + '\n[[screen.dialogs]]\nmatch = "^● Pick one"\n')
        await house.start()
        session = await house.live("ann")
        house.type("ann", "SAY Pick one", "Enter")
        await until(lambda: "● Pick one" in _screen(house, "ann", "demo"))
        sent = await house.send("ann", "NOTHING\nover a menu")
        assert (sent.state, sent.reason) == ("held", "busy")
        await asyncio.sleep(0.3)
        assert (await house.row(sent.message_id)).attempt == 0
        # An empty screen has no composer either; drawn anew, it has.
        house.tmux("ann", "send-keys", "-R", "-t", "=demo-ann:")
        house.type("ann", "x")
        await house.drawn("ann", "x")
        house.type("ann", "", "BSpace")
        await house.wait(sent.message_id, "seen")
        assert house.session("ann") is session


def _screen(house: House, name: str, runtime: str) -> str:
    return house.tmux(name, "capture-pane", "-p", "-t", f"={runtime}-{name}:", runtime=runtime)


async def test_copy_mode_is_left_for_a_message() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.tmux("ann", "copy-mode", "-t", "=demo-ann:")
        sent = await house.send("ann", "NOTHING\nwhile you scroll")
        await house.wait(sent.message_id, "seen")
        assert house.bodies("ann")[-1] == "NOTHING\nwhile you scroll"


@pytest.mark.parametrize("hangs_s", [0.0, 2.0])
@pytest.mark.parametrize("misbehave", ["", "swallow_enter=1"])
async def test_a_program_that_hangs_gets_everything_once_when_it_goes_on(
    hangs_s: float, misbehave: str
) -> None:
    """Hung, it draws nothing; the first Enter that reaches it is swallowed, as real ones do."""
    async with open_house("ann", misbehave=misbehave) as house:
        await house.close()
        # A child of the pane's process: tmux wakes a pane's own process that was stopped.
        house.runtime("demo", _demo_in_a_shell())
        await house.start()
        await house.fleet.wake("ann", None)
        pane = house.session("ann").pane[0]
        (child,) = Path(f"/proc/{pane}/task/{pane}/children").read_text(encoding="utf-8").split()
        os.kill(int(child), signal.SIGSTOP)
        try:
            sending = [asyncio.create_task(house.send("ann", f"NOTHING\n{n}")) for n in range(3)]
            await until(lambda: any(house.tmux("ann", "show-options", "-qv", "@iap_pasted")))
            await asyncio.sleep(hangs_s)
            assert house.prompts("ann") == []
        finally:
            os.kill(int(child), signal.SIGCONT)
        for one in sending:
            await house.wait((await one).message_id, "seen")
        assert house.bodies("ann") == [f"NOTHING\n{n}" for n in range(3)]
        assert not any("dup=" in p for p in house.prompts("ann"))


def _demo_in_a_shell() -> str:
    text = (SHIPPED / "demo.toml").read_text(encoding="utf-8")
    plain = '["{python}", "-P", "-m", "iapeer.apps.demo_agent"]'
    assert plain in text
    return text.replace(plain, '["sh", "-c", "{python} -P -m iapeer.apps.demo_agent; true"]', 1)


COOKED = f"""
id = "cooked"
[launch]
argv = ["{sys.executable}", "-P", "-m", "iapeer.apps.demo_agent.cooked"]
[launch.env]
DEMO_TRANSCRIPT = "{{state_dir}}/heard.jsonl"
"""


async def test_a_line_reader_nobody_knows_gets_every_line_and_landed_is_final() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime("cooked", COOKED)
        house.create("ann", runtime="cooked")
        await house.start()
        sent = [await house.send("ann", f"line one of {n}\nline two") for n in range(3)]
        for one in sent:
            assert one.delivered
            assert (await house.wait(one.message_id, "landed")).final
        wanted = [x for n in range(3) for x in (f"<msg>line one of {n}", "line two</msg>")]
        await until(lambda: len(house.prompts("ann", "cooked")) >= 15)
        heard = [p for p in house.prompts("ann", "cooked") if "line" in p]
        assert heard == wanted


async def test_cat_takes_messages() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime("cat", 'id = "cat"\n[launch]\nargv = ["cat"]\n')
        house.create("ann", runtime="cat")
        await house.start()
        sent = await house.send("ann", "meow")
        assert sent.state == "landed"
        await until(lambda: _screen(house, "ann", "cat").count("<msg>meow</msg>") == 2)


@pytest.mark.requirement("envelope:compact:where", "delivery:router")
async def test_the_pane_door_gives_a_router_the_wire_form() -> None:
    async with open_house() as house:
        await house.close()
        house.runtime(
            "bridge",
            'id = "bridge"\nkind = "router"\n[launch]\nargv = ["cat"]\n[submit]\nkey = "C-j"\n',
        )
        house.create("ann", runtime="bridge")
        await house.start()
        sent = [await house.send("ann", f"over the bridge {n}") for n in range(2)]
        for one in sent:
            row = await house.wait(one.message_id, "landed")
            assert (row.final, row.door) == (True, "pane")
        wanted = [f"<message><![CDATA[over the bridge {n}]]></message>" for n in range(2)]
        await until(lambda: all(_screen(house, "ann", "bridge").count(w) == 2 for w in wanted))
