"""What a session's hooks tell is put into order before its lane hears of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from iapeer.core.clock import SystemClock
from iapeer.core.identity import Identity
from iapeer.routing.lanes.letters import Observed
from iapeer.routing.lanes.pool import Lanes
from iapeer.routing.tokens import HookEvidence
from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession, marks_of
from iapeer.sessions.tmux.server import TmuxServer

pytestmark = pytest.mark.anyio

IDLE = {"hook_event_name": "Notification", "timestamp": "2026-11-23T04:18:02.251Z"}
FAILED = {"hook_event_name": "StopFailure", "timestamp": "2026-11-23T04:18:02.177Z"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Lane:
    """A lane that only listens."""

    def __init__(self, cwd: Path) -> None:
        spec = load_manifest(SHIPPED / "qwen.toml")
        self.services = SimpleNamespace(clock=SystemClock())
        self.heard: list[Fact] = []
        self.session = TmuxSession(
            id="s",
            uid="u",
            identity=Identity("qwen", "ann"),
            spec=spec,
            cwd=cwd,
            tmux=TmuxServer(cwd / "t"),
            server=(1, 1),
            pane=(1, 1),
            marks=marks_of(spec),
        )

    def observe(self, observed: Observed) -> None:
        self.heard += observed.facts


async def test_why_a_turn_is_over_is_told_before_that_it_is(tmp_path: Path) -> None:
    """A program that waits for neither hook runs both at once."""
    lane = Lane(tmp_path)
    hooks = HookEvidence(cast("Lanes", SimpleNamespace(of_session=lambda _id: lane)))
    idle = asyncio.create_task(hooks.hook_event("s", IDLE))
    await asyncio.sleep(0)
    assert lane.heard == []
    await hooks.hook_event("s", FAILED)
    async with asyncio.timeout(30.0):
        await idle
    assert [fact.status for fact in lane.heard] == ["api_error", "interrupted"]


async def test_a_prompt_was_read_when_its_program_says_so(tmp_path: Path) -> None:
    lane = Lane(tmp_path)
    hooks = HookEvidence(cast("Lanes", SimpleNamespace(of_session=lambda _id: lane)))
    told = {"hook_event_name": "UserPromptSubmit", "prompt": "x"}
    before = lane.services.clock.now()
    await hooks.hook_event("s", told)
    await hooks.hook_event("s", {**told, "timestamp": FAILED["timestamp"]})
    first, second = lane.heard
    assert first.at is not None
    assert first.at >= before
    assert second.at == second.stamp == 1795407482.177
