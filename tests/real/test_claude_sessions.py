"""Sessions of the real Claude Code: they die, are gone on with, cleared, shortened, interrupted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from iapeer.routing.lanes.controls import INTERRUPT_GAP_S
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import Call, Hold, Rule, Say, Script
from tests.integration.routing.house import until
from tests.real.claude_house import (
    CLAUDE,
    HELD,
    HOLD,
    ClaudeHouse,
    open_claude,
    read_jsonl,
    texts_of,
)

pytestmark = pytest.mark.anyio

BASH = Call("Bash", {"command": "sleep 60", "description": "wait"})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    # What comes more often is answered at once.
    return (
        Rule(f"ONCE {HOLD}", HELD, times=1),
        Rule("ONCE", (Say("ok"),)),
        Rule(f"SILENT {HOLD}", (Hold("$1"), Say("late"))),
        Rule(HOLD, HELD),
        Rule("BASH", (BASH, Say("done")), times=1),
    )


async def test_what_a_killed_session_had_read_or_queued_comes_once_more_and_marked(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        read = await house.send("ann", f"ONCE HOLD {house.go}: read in the turn that died")
        await house.wait(read.message_id, "seen")
        await house.asked(read.message_id)
        queued = await house.send("ann", "still in the queue of the program")
        await house.wait(queued.message_id, "landed")
        waiting = await house.send("ann", "never handed to it")
        asked_before = len(house.turns_asked())
        await house.kill("ann")
        sent = (read, queued, waiting)
        for result in sent:
            await house.wait(result.message_id, "seen")
        assert await house.ends(read.message_id) in (["died", ""], ["died", "done"])
        last = await house.asked(waiting.message_id)
        assert len(last.user_texts) <= 3
        after = "\n".join(texts_of(r) for r in house.turns_asked()[asked_before:][-1:])
        for result, attempts in ((read, 2), (queued, 2), (waiting, 1)):
            row = await house.row(result.message_id)
            assert (row.attempt, row.dup) == (attempts, attempts == 2)
            assert after.count(await house.shown_as(row.id)) == 1
            assert after.count(f'id="{row.id}"') == 1
            assert ('dup="maybe"' in await house.shown_as(row.id)) is row.dup
        # The first session was fresh and so is the second: nothing of the dead one is gone on with.
        assert [row.mode for row in await house.sessions()] == ["fresh", "fresh"]


async def test_a_session_killed_in_a_tool_call_gives_its_message_back_and_dead_ones_do_not_pile_up(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        sent = await house.send("ann", "BASH")
        await house.asked(sent.message_id)
        await until(lambda: "Running" in house.pane("ann"), "the tool to run")
        children = psutil.Process(house.session("ann", CLAUDE).pane[0]).children(recursive=True)
        await house.kill("ann")
        await house.asked(sent.message_id, 2)
        await house.wait(sent.message_id, "seen")
        await house.ended(sent.message_id, "died", "done")
        assert (await house.row(sent.message_id)).dup
        psutil.wait_procs(children, timeout=0)
        for child in (child for child in children if child.is_running()):
            child.kill()


async def test_a_parked_session_is_gone_on_with_for_its_topic_and_not_for_another(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        first = await house.done("ann", "about bees", topic="bees")
        before = house.session("ann", CLAUDE).native_id
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        second = await house.done("ann", "more about bees", topic="bees")
        asked = await house.asked(second)
        assert [row.mode for row in await house.sessions()] == ["fresh", "resume"], house.log()
        assert [text.rstrip("\n") for text in asked.user_texts] == [
            await house.shown_as(first),
            await house.shown_as(second),
        ]
        session = house.session("ann", CLAUDE)
        assert (session.mode, session.native_id) == ("resume", before)
        words = psutil.Process(session.pane[0]).cmdline()
        assert words[words.index("--resume") + 1] == before
        assert "--session-id" not in words
        # The hook tells before the record does.
        await until(lambda: _envelopes(session.transcript) == 2, "both to be in the record")
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        third = await house.done("ann", "about wasps", topic="wasps")
        assert (await house.asked(third)).user_texts == (await house.shown_as(third),)
        assert [row.mode for row in await house.sessions()] == ["fresh", "resume", "fresh"]
        assert house.session("ann", CLAUDE).native_id != before


def _envelopes(transcript: str) -> int:
    """How many user inputs in a record hold a message of ours."""
    users = [line for line in read_jsonl(Path(transcript)) if line["type"] == "user"]
    return sum("<iap" in json.dumps(line["message"]["content"]) for line in users)


async def test_a_turn_that_is_cut_off_is_never_told_as_done_whenever_the_key_is_pressed(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        await house.done("ann", "hello")
        # With a message in the queue, which goes in at once: after words, and before the first one.
        for how in ("HOLD", "SILENT HOLD"):
            cut = await house.send("ann", f"{how} {house.go}")
            await house.asked(cut.message_id)
            queued = await house.send("ann", f"queued behind {how.lower()}")
            await house.wait(queued.message_id, "landed")
            house.type("ann", "", "Escape", runtime=CLAUDE)
            await house.ended(queued.message_id, "done")
            await house.ended(cut.message_id, "interrupted")
            await _written(house, queued.message_id)
            assert await house.ends(queued.message_id) == ["done"]
            assert await house.ends(cut.message_id) == ["interrupted"]
        # Before the first word, with nothing queued: the program takes the prompt back and does not
        # tell. Its words stand in the composer, and are the person's.
        cut = await house.send("ann", f"SILENT HOLD {house.go}")
        await house.asked(cut.message_id)
        house.type("ann", "", "Escape", runtime=CLAUDE)
        await until(lambda: house.shown("ann").startswith("<iap "), "the words to be given back")
        held = await house.send("ann", "after the words are away")
        assert held.reason == "composer"
        assert await house.ends(cut.message_id) == [""]
        house.type("ann", "", "C-c", runtime=CLAUDE)
        await house.ended(held.message_id, "done")
        assert await house.ends(cut.message_id) == ["interrupted"]
        assert cut.message_id not in texts_of(await house.asked(held.message_id))


@pytest.mark.requirement("launch:interrupt:given-back")
async def test_what_our_own_interrupt_brings_back_into_the_composer_is_cleared_and_mail_goes_on(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        await house.done("ann", "hello")
        rows = "".join(f"row {n}\n" for n in range(200))
        # Short, taller than the screen, and so long that the program shows its two ends only.
        for more in ("", rows, "many words \U0001f469\u200d\U0001f467 \u200b\n" * 800):
            cut = await house.send("ann", f"SILENT HOLD {house.go}\n{more}")
            await house.asked(cut.message_id)
            await _interrupt(house)
            await house.ended(cut.message_id, "interrupted")
            assert house.shown("ann") == ""
            after = await house.send("ann", "after the interrupt")
            assert after.state != "held"
            await house.ended(after.message_id, "done")
            row = await house.row(cut.message_id)
            assert (row.state, row.attempt, row.dup) == ("seen", 1, False)
            assert cut.message_id not in texts_of(await house.asked(after.message_id))
        # After the first word nothing comes back: the next one is not kept waiting.
        cut = await house.send("ann", f"HOLD {house.go}")
        await until(lambda: "one word" in house.pane("ann"), "the answer to be drawn")
        await _interrupt(house)
        await house.ended(cut.message_id, "interrupted")
        await house.done("ann", "after the words")
        # Beside what a person writes there nothing is touched.
        cut = await house.send("ann", f"SILENT HOLD {house.go}")
        await house.asked(cut.message_id)
        house.type("ann", "of a person", runtime=CLAUDE)
        await until(lambda: house.shown("ann") == "of a person", "the draft to be drawn")
        said = house.pane("ann").count("Interrupted")
        await _interrupt(house)
        await until(lambda: house.pane("ann").count("Interrupted") > said, "the key to be read")
        held = await house.send("ann", "behind the draft")
        assert (held.state, held.reason) == ("held", "composer")
        assert "of a person" in house.pane("ann")
        house.type("ann", "", "C-c", runtime=CLAUDE)
        await house.ended(held.message_id, "done")


async def _interrupt(house: ClaudeHouse) -> None:
    """Interrupt as the command does, when the newest one is so long ago that its key is pressed."""
    await asyncio.sleep(INTERRUPT_GAP_S)
    assert await house.fleet.interrupt("ann", None) == "claude-ann"


async def _written(house: ClaudeHouse, message_id: str) -> None:
    """Wait until the record holds the end of the turn that read a message; hooks tell before."""

    def look() -> bool:
        lines = house.transcript("ann")
        texts = [json.dumps(line.get("message")) for line in lines]
        places = [place for place, text in enumerate(texts) if f'id=\\"{message_id}' in text]
        return any(
            line.get("subtype") == "turn_duration" for place in places for line in lines[place:]
        )

    await until(look, "the record to be written")


async def test_a_person_interrupts_clears_and_compacts_and_messages_are_proven_all_the_same(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        # Escape: no hook tells of it, the record does.
        cut = await house.send("ann", f"HOLD {house.go}")
        await house.wait(cut.message_id, "seen")
        await house.asked(cut.message_id)
        await until(lambda: "one word" in house.pane("ann"), "the answer to be drawn")
        house.type("ann", "", "Escape", runtime=CLAUDE)
        await house.ended(cut.message_id, "interrupted")
        after = await house.done("ann", "after the interrupt")
        assert (await house.row(cut.message_id)).state == "seen"
        # /compact: the same session, a shorter history.
        session = house.session("ann", CLAUDE)
        before = session.native_id
        await house.command("ann", "/compact")
        await until(lambda: _has(session.transcript, "compact_boundary"), "the compaction")
        compacted = await house.done("ann", "after the compaction")
        assert session.native_id == before
        said = (await house.asked(compacted)).user_texts
        assert await house.shown_as(after) not in said
        assert said[-1] == await house.shown_as(compacted)
        # /clear: another session of the program, and our evidence moves with it.
        await house.command("ann", "/clear")
        await until(lambda: session.native_id != before, "the new conversation")
        cleared = await house.send("ann", f"HOLD {house.go}, after the clearing")
        await house.wait(cleared.message_id, "seen")
        asked = await house.asked(cleared.message_id)
        assert [text for text in asked.user_texts if "<iap" in text] == [
            await house.shown_as(cleared.message_id)
        ]
        in_queue = await house.send("ann", "its record is followed: landed by it")
        await house.wait(in_queue.message_id, "landed")
        house.go.touch()
        await house.ended(cleared.message_id, "done")
        await house.wait(in_queue.message_id, "seen")
        await house.ended(in_queue.message_id, "done")
        assert Path(session.transcript).stem == session.native_id
        (row,) = await house.live_rows()
        assert (row.native_id, row.transcript) == (session.native_id, session.transcript)
        # What is gone on with later is the conversation after the clearing.
        await house.fleet.stop("ann", None)
        await house.fleet.start("ann", None)
        await house.fleet.wake("ann", CLAUDE)
        assert house.session("ann", CLAUDE).native_id == row.native_id


def _has(transcript: str, subtype: str) -> bool:
    return any(line.get("subtype") == subtype for line in read_jsonl(Path(transcript)))
