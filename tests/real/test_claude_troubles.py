"""The real Claude Code when its model refuses, and when our daemon is away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from unittest import mock

import pytest

from iapeer.routing.tokens import HookEvidence
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import Fail, Rule, Script
from tests.integration.routing.house import until
from tests.real.claude_house import (
    CLAUDE,
    HELD,
    HELD_TOOL,
    HOLD,
    ClaudeHouse,
    open_claude,
    texts_of,
)

pytestmark = pytest.mark.anyio

RESET_S = 5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script | Iterable[Rule]:
    words = f"This is too much, please try again in {RESET_S} s"
    return (
        Rule("LIMITED", (Fail(status=429, retry_after=1, message=words),)),
        Rule("REFUSED", (Fail(status=401),)),
        Rule("OVERLOADED", (Fail(status=529),)),
        Rule(f"BASH {HOLD}", HELD_TOOL),
        Rule(HOLD, HELD),
    )


async def test_a_used_up_quota_holds_messages_until_it_is_over_and_repeats_nothing(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    # The hold without a told time is far longer than the test.
    async with open_claude(
        empty_home / "x", agent_path, model, "ann", quota_hold_s=300.0, api_error_hold_s=3.0
    ) as house:
        limited = await house.send("ann", "LIMITED")
        await house.ended(limited.message_id, "api_error")
        ended_at = time.monotonic()
        assert (await house.row(limited.message_id)).state == "seen"
        later = await house.send("ann", "after the quota")
        assert (later.state, later.reason) == ("held", "quota")
        await house.wait(later.message_id, "seen")
        assert time.monotonic() - ended_at > RESET_S - 2
        carry_on = f"You had read message {limited.message_id}"
        await house.asked(carry_on)
        assert "its model did not answer" in await trace(house, limited.message_id)
        # Other failures are held as such, and each has its own notice.
        for word in ("REFUSED", "OVERLOADED"):
            failed = await house.send("ann", word)
            await house.ended(failed.message_id, "api_error")
            held = await house.send("ann", f"after {word.lower()}")
            assert (held.state, held.reason) == ("held", "api_error")
            await house.wait(held.message_id, "seen")
            await house.asked(f"You had read message {failed.message_id}")
        last = "\n".join(house.turns_asked()[-1].user_texts)
        assert last.count(await house.shown_as(limited.message_id)) == 1
        assert last.count(carry_on) == 1
        assert last.count("nothing is sent again") == 3
        assert 'dup="maybe"' not in last
        categories = [line for line in house.log().splitlines() if "ev=api-error" in line]
        told = {line.split("category=")[1].split()[0] for line in categories}
        assert told == {"rate_limit", "authentication_failed", "server_error"}


async def trace(house: ClaudeHouse, message_id: str) -> str:
    """What `iapeer trace` prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-P", "-m", "iapeer", "trace", message_id],
        env=house.environ,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    return done.stdout


async def test_a_daemon_that_goes_away_in_mid_turn_disturbs_nobody_and_knows_all_when_it_is_back(
    empty_home: Path, agent_path: str, model: SimulatedModel
) -> None:
    told: list[tuple[str, str]] = []
    take = HookEvidence.hook_event

    async def spy(self: HookEvidence, session_id: str, event: Mapping[str, object]) -> int:
        told.append((str(event["hook_event_name"]), str(event.get("prompt", ""))))
        return await take(self, session_id, event)

    async with open_claude(empty_home / "x", agent_path, model, "ann") as house:
        with mock.patch.object(HookEvidence, "hook_event", spy):
            await _away_and_back(house, told)


async def _away_and_back(house: ClaudeHouse, told: list[tuple[str, str]]) -> None:
    mine = _add_hook_of_the_person(house)
    back = house.base / "back"
    read = await house.send("ann", f"HOLD {house.go}")
    await house.wait(read.message_id, "seen")
    await house.asked(read.message_id)
    queued = await house.send("ann", f"BASH HOLD {back}, from the queue")
    await house.wait(queued.message_id, "landed")
    waiting = await house.accept("ann", "stored while nobody could hand it over", runtime=CLAUDE)
    await house.close()
    house.go.touch()
    # Its hooks fail now. It ends the turn, and begins the next one with what it had queued.
    await house.asked(queued.message_id)
    transcript = house.home / ".claude/projects"
    await until(lambda: _count(transcript, "turn_duration") == 1, "the first turn to end")
    await house.start()
    await until(lambda: house.lane("ann", CLAUDE).phase == "live", "the session to be adopted")
    back.touch()
    await house.ended(queued.message_id, "done")
    assert await house.ends(read.message_id) == ["done"]
    await house.wait(waiting, "seen")
    await house.ended(waiting, "done")
    await house.idle("ann")
    last = texts_of(house.turns_asked()[-1])
    for message_id in (read.message_id, queued.message_id, waiting):
        row = await house.row(message_id)
        assert (row.state, row.attempt, row.dup) == ("seen", 1, False)
        assert last.count(await house.shown_as(message_id)) == 1
    assert len(await house.sessions()) == 1
    # Neither the person nor the model was told of the hooks that failed.
    summaries = await until(
        lambda: [line for line in house.transcript("ann") if "hookErrors" in line],
        "the record to tell of hooks",
    )
    assert not [line for line in summaries if line["hookErrors"]]
    assert "no daemon" not in house.pane("ann")
    assert not [request for request in house.model.requests if b"no daemon" in request.body]
    # Each event was told once, and what the person has set up ran beside it.
    prompts = Counter(prompt for name, prompt in told if name == "UserPromptSubmit")
    assert set(prompts.values()) == {1}
    assert sum(name == "SessionStart" for name, _ in told) == 1
    turns = mine.read_text(encoding="utf-8").count("Stop")
    await until(lambda: _count(transcript, "turn_duration") == turns, "the record to be written")
    # The daemon was away at the end of the first one.
    assert sum(name == "Stop" for name, _ in told) == turns - 1


def _add_hook_of_the_person(house: ClaudeHouse) -> Path:
    """Set up what a person may have: a hook of their own at the end of turns."""
    notes = house.home / "my-hook.txt"
    hook = {"type": "command", "command": f"echo Stop >> {notes}"}
    settings = house.home / ".claude/settings.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"hooks": {"Stop": [{"hooks": [hook]}]}}), encoding="utf-8")
    return notes


def _count(projects: Path, subtype: str) -> int:
    (path,) = projects.rglob("*.jsonl")
    return path.read_text(encoding="utf-8").count(f'"subtype":"{subtype}"')
