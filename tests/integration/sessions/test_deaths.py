"""Sessions die; their messages do not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from iapeer.core.errors import LaunchFailed, SendRefused
from iapeer.storage.ledger import marks
from tests.integration.routing.house import House, open_house, until

pytestmark = [pytest.mark.anyio, pytest.mark.real_tmux]


def _exits(house: House) -> str:
    log = house.paths.exits_log
    return log.read_text(encoding="utf-8") if log.exists() else ""


async def _idle(house: House) -> None:
    """The turn has ended, so a death now gives nothing back."""

    async def look() -> bool:
        (row,) = await house.live_rows()
        ended = house.records("ann")[-1].get("op") == "end"
        return ended and row.read_offset == Path(row.transcript).stat().st_size

    await until(look)


@pytest.mark.requirement("logs:exits")
async def test_a_killed_program_is_recorded_and_the_next_message_wakes_a_new_one() -> None:
    async with open_house("ann") as house:
        first = await house.live("ann")
        await _idle(house)
        os.kill(first.pane[0], signal.SIGKILL)
        await until(lambda: house.lane("ann").phase == "asleep")
        await until(lambda: "session-exit" in _exits(house))
        assert "dead_signal=9" in _exits(house)
        assert "demo-ann" in _exits(house)
        second = await house.live("ann")
        assert second.id != first.id
        assert [r.end_cause != "" for r in await house.sessions()] == [True, False]
        assert house.bodies("ann") == ["NOTHING", "NOTHING"]


@pytest.mark.requirement("logs:exits:server")
async def test_a_killed_tmux_server_is_noticed_and_its_program_does_not_stay() -> None:
    async with open_house("ann") as house:
        first = await house.live("ann")
        await _idle(house)
        os.kill(first.server[0], signal.SIGKILL)
        await until(lambda: "server-exit" in _exits(house))
        await until(lambda: house.lane("ann").phase == "asleep")
        await house.nothing_left()
        await house.live("ann")
        assert house.bodies("ann") == ["NOTHING", "NOTHING"]


@pytest.mark.requirement("logs:exits")
async def test_an_exit_status_and_the_last_words_are_kept() -> None:
    async with open_house("ann") as house:
        await house.live("ann")
        await house.send("ann", "SAY my last words\nEXIT 5")
        await until(lambda: "dead_status=5" in _exits(house))
        uid = house.services.registry.snapshot().require("ann").uid
        deaths = await until(
            lambda: house.services.ledger.read(
                lambda c: marks.deaths_since(c, uid, "demo", 0, ("death",))
            )
        )
        assert "exit status 5" in deaths[0].detail


@pytest.mark.requirement("lifecycle:crash-loop")
async def test_three_failed_boots_hold_broken_and_start_clears() -> None:
    # So long that it is not tried again while the test looks.
    async with open_house("ann", misbehave="exit_at_start=1", boot_backoff_max_s=300.0) as house:
        sent = await house.send("ann", "NOTHING\npatient")
        assert (sent.state, sent.reason) == ("held", "broken")
        boots = len(await house.sessions())
        assert boots == 3
        (problem,) = (await house.fleet.status())["problems"]
        assert problem.startswith("demo-ann does not come up: ")
        assert "exit status 1" in problem
        assert "run it by hand" in problem
        house.launch_env("ann", "")
        await house.fleet.start("ann", None)
        row = await house.wait(sent.message_id, "seen")
        assert (row.attempt, row.dup) == (1, False)
        uid = house.services.registry.snapshot().require("ann").uid
        left = await house.services.ledger.read(
            lambda c: marks.deaths_since(c, uid, "demo", 0, ("boot", "death"))
        )
        assert left == []
        assert (await house.fleet.status())["problems"] == []


@pytest.mark.requirement("lifecycle:crash-loop")
async def test_a_broken_peer_is_tried_again_slowly_by_itself() -> None:
    async with open_house("ann", misbehave="exit_at_start=1", boot_backoff_max_s=0.5) as house:
        sent = await house.send("ann")
        assert sent.reason == "broken"
        house.launch_env("ann", "")
        await house.wait(sent.message_id, "seen")


async def test_a_person_who_attaches_to_a_broken_peer_is_told_why() -> None:
    async with open_house("ann", misbehave="exit_at_start=1") as house:
        with pytest.raises(LaunchFailed) as failed:
            await house.fleet.wake("ann", None)
        assert failed.value.code == "exited"


async def test_a_message_that_kills_its_reader_is_shown_twice_and_then_a_dead_letter() -> None:
    async with open_house("ann", misbehave="crash_on_message") as house:
        sent = asyncio.create_task(house.send("ann", "NOTHING\npoison"))
        await until(lambda: house.prompts("ann"))
        (message_id,) = await house.services.ledger.read(
            lambda c: [str(v[0]) for v in c.execute("SELECT id FROM messages")]
        )
        row = await house.wait(message_id, "failed")
        assert "died 2 times" in row.reason
        first, second = house.prompts("ann")
        assert "dup=" not in first
        assert 'dup="maybe"' in second
        await asyncio.wait({sent})
        assert sent.exception() is None or isinstance(sent.exception(), SendRefused)


async def test_a_reader_that_dies_without_a_word_does_not_spin() -> None:
    async with open_house("ann", misbehave="crash_on_message,no_hook,no_transcript") as house:
        sent = await house.send("ann", "NOTHING\npoison")
        row = await house.wait(sent.message_id, "broken", "failed")
        assert row.dup
        before = len(await house.sessions())
        await asyncio.sleep(1.0)
        # One boot per back-off of 0.3 s, give or take its jitter.
        assert len(await house.sessions()) - before <= 5


async def test_stop_gives_back_what_the_reader_had_not_seen() -> None:
    async with open_house("ann", misbehave="no_hook,no_transcript", evidence_s=30.0) as house:
        sent = await house.send("ann", "NOTHING\nunproven")
        await house.wait(sent.message_id, "landed")
        await house.fleet.stop("ann", None)
        row = await house.row(sent.message_id)
        assert (row.state, row.reason, row.dup) == ("held", "stopped", True)
        await house.nothing_left()
        house.launch_env("ann", "")
        await house.fleet.start("ann", None)
        await house.wait(sent.message_id, "seen")
        (prompt,) = house.prompts("ann")
        assert 'dup="maybe"' in prompt


async def test_nothing_is_thrown_away_when_the_reader_dies_under_a_queue() -> None:
    async with open_house("ann") as house:
        session = await house.live("ann")
        slow = await house.send("ann", f"HOLD {house.go}")
        await house.wait(slow.message_id, "seen")
        sent = [await house.send("ann", f"NOTHING\n{n}") for n in range(4)]
        os.kill(session.pane[0], signal.SIGKILL)
        # The next session is shown the first message again.
        house.go.touch()
        for one in sent:
            await house.wait(one.message_id, "seen")
        got = [b for b in house.bodies("ann") if b.startswith("NOTHING\n")]
        assert got == [f"NOTHING\n{n}" for n in range(4)]
        dups = [(await house.row(s.message_id)).dup for s in sent]
        # Only the one that was in the program's own queue can have been shown.
        assert dups == [True, False, False, False]
