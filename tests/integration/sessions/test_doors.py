"""How text gets into a runtime: never into a person's draft, never half, never out of order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


async def test_a_swallowed_enter_is_pressed_again() -> None:
    async with open_house("ann", misbehave="swallow_enter=2") as house:
        sent = await house.send("ann", "NOTHING\nhello")
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        assert house.bodies("ann") == ["NOTHING\nhello"]


async def test_enters_swallowed_beyond_the_doors_patience_are_pressed_on_by_the_lane() -> None:
    async with open_house("ann", misbehave="swallow_enter=5", evidence_s=10.0) as house:
        sent = await house.send("ann", "NOTHING\nhello")
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        assert house.bodies("ann") == ["NOTHING\nhello"]


DRAFT = "half a thought: $(id) 'quoted'"


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
        journal = house.lane("ann")._journal
        begin = type(journal).begin

        async def slow_disk(self: object, *args: object) -> int:
            if house.composer("ann") == "":
                house.type("ann", DRAFT)
                await house.drawn("ann", DRAFT)
            return await begin(self, *args)  # type: ignore[arg-type]

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
        await lane._journal.begin(row, session.id, "paste")
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
    async with open_house() as house:
        await house.close()
        house.runtime("menu", MENU)
        house.create("ann", runtime="menu")
        await house.start()
        session = await house.live("ann", "menu")
        house.type("ann", "m", "Enter", runtime="menu")
        await until(lambda: "Pick one" in _screen(house, "ann", "menu"))
        sent = await house.send("ann", "over a menu")
        assert (sent.state, sent.reason) == ("held", "busy")
        await asyncio.sleep(0.3)
        assert (await house.row(sent.message_id)).attempt == 0
        house.type("ann", "", "Enter", runtime="menu")
        await house.wait(sent.message_id, "landed")
        assert house.session("ann", "menu") is session


MENU_PROGRAM = (
    "import sys\\n"
    "print('> ', end='', flush=True)\\n"
    "for line in sys.stdin:\\n"
    "    print(chr(27) + '[2J' + chr(27) + '[H', end='')\\n"
    "    print('Pick one' if line.strip() == 'm' else '> ', end='', flush=True)\\n"
)
MENU = f"""
id = "menu"
[launch]
argv = ["{sys.executable}", "-u", "-c", "{MENU_PROGRAM}"]
[screen]
prompt_glyphs = [">"]
ready = ["^>"]
[[screen.dialogs]]
match = "^Pick one"
"""


def _screen(house: House, name: str, runtime: str) -> str:
    return house.tmux(name, "capture-pane", "-p", "-t", f"={runtime}-{name}:", runtime=runtime)


async def test_copy_mode_is_left_for_a_message() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        house.tmux("ann", "copy-mode", "-t", "=demo-ann:")
        sent = await house.send("ann", "NOTHING\nwhile you scroll")
        await house.wait(sent.message_id, "seen")
        assert house.bodies("ann")[-1] == "NOTHING\nwhile you scroll"


async def test_a_stopped_program_gets_everything_once_it_goes_on() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        os.kill(session.pane[0], signal.SIGSTOP)
        try:
            sent = [await house.send("ann", f"NOTHING\n{n}") for n in range(3)]
            # The first may be in its terminal; more is not claimed of a program that can't read.
            await asyncio.sleep(1.5)
        finally:
            os.kill(session.pane[0], signal.SIGCONT)
        for one in sent:
            await house.wait(one.message_id, "seen")
        plain = [b for b in house.bodies("ann")[1:]]
        assert plain == [f"NOTHING\n{n}" for n in range(3)]
        assert house.session("ann") is session


async def test_a_stopped_program_that_swallows_the_enter_does_not_keep_the_message() -> None:
    async with open_house("ann", misbehave="swallow_enter=1", evidence_s=1.0) as house:
        async with asyncio.timeout(10):
            session = await house.services.launcher.launch(
                _request(house, "ann"), house.services.catalog.get("demo")
            )
            await house.services.launcher.end(session, "test")
        boot = asyncio.create_task(house.fleet.wake("ann", None))
        await boot
        session = house.session("ann")
        os.kill(session.pane[0], signal.SIGSTOP)
        try:
            sent = await house.send("ann", "NOTHING\nslowly")
        finally:
            os.kill(session.pane[0], signal.SIGCONT)
        await house.wait(sent.message_id, "seen", timeout_s=12)
        assert house.bodies("ann") == ["NOTHING\nslowly"]


def _request(house: House, name: str) -> object:
    from iapeer.core.identity import Identity
    from iapeer.sessions.model import LaunchRequest

    record = house.services.registry.snapshot().require(name)
    return LaunchRequest(record.uid, Identity("demo", name), Path(record.cwd))


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
