"""Conversations of a Codex terminal that a person leaves for a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest

from iapeer.core.ids import new_message_id
from iapeer.core.states import TurnEnd
from iapeer.sessions.appserver import AppServerChannel
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import Rule, Script
from tests.real.codex_rig import DEADLINE_S, RULES, Codex, letter, until
from tests.real.terminal_tap import Tap

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    return RULES


@pytest.fixture
def tap(empty_home: Path, anyio_backend: str) -> Tap:
    return Tap(empty_home / "tap.sock", empty_home / "c.sock")


@pytest.fixture
async def codex(
    agent_binaries: Mapping[str, Path],
    agent_environ: dict[str, str],
    model: SimulatedModel,
    tap: Tap,
) -> AsyncIterator[Codex]:
    running = Codex(agent_binaries["codex"], agent_environ, model)
    running.tap = tap
    try:
        await running.up()
        yield running
    finally:
        await running.down()


async def test_a_conversation_that_a_person_begins_anew_is_followed(codex: Codex) -> None:
    await codex.hand("one")
    await codex.ended(1)
    before = codex.channel.native_id
    await codex.drawn_end()
    await codex.type_new()
    codex.key("Enter")
    await until(lambda: codex.channel.native_id != before, "the new one is followed")
    sent = await codex.hand("two")
    await codex.seen(sent)
    await codex.ended(2)
    told = [fact.native_id for fact in codex.facts if fact.kind == "session"]
    assert told == [before, codex.channel.native_id]
    # No earlier text is in the new conversation.
    assert "one" not in " ".join(codex.asks[-1].user_texts[:-1])


async def test_a_message_that_comes_while_a_person_begins_anew_is_told_to_its_end(
    codex: Codex,
) -> None:
    """It belongs to whichever conversation it reached, and runs there once."""
    for step in range(4):
        await codex.type_new()
        pressed = asyncio.create_task(asyncio.to_thread(codex.key, "Enter"))
        await asyncio.sleep(step * 0.02)
        sent = await codex.hand(f"number {step}")
        await pressed
        await codex.seen(sent)
        await codex.ended(step + 1)
        assert codex.asked(f"number {step}") == 1
    assert codex.ends() == [TurnEnd.DONE] * 4


async def leave_in_mid_turn(codex: Codex, tap: Tap, go: Path) -> str:
    """Begin anew while a message begins a turn that lasts until `go` is made; return its id.

    The terminal refuses `/new` once it knows of a turn (0.169.0). Here it has taken
    the command before it can know, and what it asks for comes to the server after the message.
    """
    await codex.hand("hello")
    await codex.ended(1)
    await codex.drawn_end()
    left, before = new_message_id(), codex.channel.native_id
    await codex.type_new()
    tap.hold()
    tap.asked.clear()
    codex.key("Enter")
    # With this it begins to make the new conversation, and nothing stops it any more.
    await until(lambda: "config/read" in tap.asked, "the command is taken")
    text = handed_text(codex.session, letter(left, f"HELD {go}"))
    await codex.channel.queue_add(text, f"{left}-1", DEADLINE_S)
    await codex.seen(left)
    assert codex.channel.native_id == before
    tap.let_go()
    await until(lambda: codex.channel.native_id != before, "the new one is followed")
    return left


async def test_a_turn_in_the_conversation_that_was_left_goes_on_and_ends_by_itself(
    codex: Codex, tap: Tap, tmp_path: Path
) -> None:
    left = await leave_in_mid_turn(codex, tap, tmp_path / "go")
    await codex.hand("beside it")
    await codex.ended(2)
    assert codex.channel.busy
    (tmp_path / "go").touch()
    await codex.ended(3)
    done = TurnEnd.DONE
    assert told_ends(codex.facts) == [(done, ()), (done, (left,)), (done, ())]
    assert codex.asked(left) == 1


async def test_a_later_channel_hears_the_conversation_that_was_left_too(
    codex: Codex, tap: Tap, tmp_path: Path
) -> None:
    left = await leave_in_mid_turn(codex, tap, tmp_path / "go")
    await codex.hand("beside it")
    await codex.ended(2)
    await codex.channel.close()
    facts: list[Fact] = []
    later = AppServerChannel(
        str(codex.endpoint),
        facts.extend,
        native_id=codex.channel.native_id,
        since=time.time() + 2,
    )
    try:
        await later.start()
        await until(lambda: later.status().subscribed, "it goes on")
        await codex.door.hand_over(
            codex.session_with(later), letter(again := new_message_id(), "again"), f"{again}-1"
        )
        done = TurnEnd.DONE
        await until(lambda: told_ends(facts) == [(done, (left,))], "the end of the new turn")
        (tmp_path / "go").touch()
        await until(lambda: told_ends(facts)[1:] == [(done, ())], "and of the one that was left")
    finally:
        await later.close()


def told_ends(facts: list[Fact]) -> list[tuple[str, tuple[str, ...]]]:
    """Return how turns ended, each with what it spared."""
    return [(fact.status, fact.spares) for fact in facts if fact.kind == "turn_end"]
