"""A house in this process whose claude peers are the real program."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from iapeer.routing.lanes.envelopes import envelope_of
from iapeer.sessions.doors.text import agent_text
from iapeer.storage.ledger import turns
from iapeer.storage.ledger.rows import MessageRow
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.agents.users import move_in, user_of
from iapeer.testing.model_server import Call, Hold, RecordedRequest, Say
from tests.integration.routing.house import House, until

CLAUDE = "claude"
HOLD = r"HOLD (/[^\s<,:]+)"
"""In a rule: words of a message that name the file which its turn waits for."""
HELD = (Say("one word\n"), Hold("$1"), Say("and the last ones"))
"""The answer of such a turn. An unfinished line would not be drawn."""
HELD_TOOL = (
    Call("Bash", {"command": "until [ -e $1 ]; do sleep 0.1; done", "description": "wait"}),
    Say("done"),
)
"""A tool call that ends when the file is there."""
QUICK = {"evidence_s": 3.0, "boot_deadline_s": 40.0, "wait_waking_s": 0.0}
"""A real program on a busy machine takes longer than the demo agent."""


class ClaudeHouse(House):
    """A house at a simulated model; peers are claude unless another runtime is named."""

    model: SimulatedModel

    @property
    def home(self) -> Path:
        """The HOME of the made-up person."""
        return self.base / "h"

    def hire(self, *names: str, **variables: str) -> None:
        """Register claude peers with the person's login; `variables` go over it."""
        self.create(*names, runtime=CLAUDE)
        values = dict(user_of(CLAUDE, self.model.url).variables) | variables
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        for name in names:
            self.launch_env(name, text, CLAUDE)

    # -- what came of it ----------------------------------------------------------------------

    def pane(self, name: str) -> str:
        """What stands on the screen."""
        return self.tmux(name, "capture-pane", "-p", "-t", f"=claude-{name}:", runtime=CLAUDE)

    def shown(self, name: str) -> str:
        """The composer's text as a person sees it, folded pastes as they are."""
        lines = [line for line in self.pane(name).split("\n") if line.startswith("❯")]
        return lines[-1].removeprefix("❯").strip("\u00a0 ") if lines else ""

    def transcript(self, name: str) -> list[dict[str, Any]]:
        """All records of the running session."""
        return read_jsonl(Path(self.session(name, CLAUDE).transcript))

    def turns_asked(self) -> list[RecordedRequest]:
        """The requests of turns: titles and the like come without tools."""
        return [request for request in self.model.requests if request.has_tools]

    def asked_with(self, text: str) -> list[RecordedRequest]:
        """The requests of turns that hold this text anywhere."""
        quoted = json.dumps(text)[1:-1]
        raw = json.dumps(text, ensure_ascii=False)[1:-1]
        return [
            request
            for request in self.turns_asked()
            if quoted.encode() in request.body or raw.encode() in request.body
        ]

    async def asked(self, text: str, count: int = 1) -> RecordedRequest:
        """Wait for the `count`th request of a turn that holds this text."""
        await until(lambda: len(self.asked_with(text)) >= count, f"the model to be asked {text!r}")
        return self.asked_with(text)[count - 1]

    async def ends(self, message_id: str) -> list[str]:
        """How the turns of one message ended; empty for one that runs."""
        found = await self.services.ledger.read(lambda c: turns.turns_of(c, message_id))
        return [turn.turn_end for turn in found]

    async def ended(self, message_id: str, *ends: str) -> None:
        """Wait until the turns of a message ended like this."""

        async def look() -> bool:
            return await self.ends(message_id) == list(ends)

        try:
            await until(look)
        except AssertionError:
            raise AssertionError(f"turns: {await self.ends(message_id)}, not {ends}") from None

    async def steps(self, message_id: str) -> list[tuple[str, str, str]]:
        """(event, reason, evidence) of each step of a message."""
        return [(h.event, h.reason, h.evidence) for h in await self.history(message_id)]

    async def shown_as(self, message_id: str) -> str:
        """What the model must be given of a message; the program makes four blanks of a tab."""
        row: MessageRow = await self.row(message_id)
        return agent_text(envelope_of(row), datetime.now().astimezone()).replace("\t", "    ")

    async def done(self, name: str, text: str, **more: Any) -> str:
        """Send a message, wait until its turn is done, and return its id."""
        sent = await self.send(name, text, **more)
        await self.wait(sent.message_id, "seen")
        await self.ended(sent.message_id, "done")
        return sent.message_id

    async def idle(self, name: str) -> None:
        """Wait until the program itself says that no turn runs."""
        path = self.home / f".claude/sessions/{self.session(name, CLAUDE).pane[0]}.json"
        await until(lambda: '"status":"idle"' in path.read_text(encoding="utf-8"), "it to be idle")

    async def command(self, name: str, line: str) -> None:
        """Type a command as a person who waits for the end of the turn; a quicker one may stay."""
        await self.idle(name)
        self.type(name, line, runtime=CLAUDE)
        await until(lambda: self.shown(name) == line, f"{line} to be drawn")
        self.type(name, "", "Enter", runtime=CLAUDE)

    async def kill(self, name: str) -> None:
        """SIGKILL the program and wait until the lane knows."""
        session = self.session(name, CLAUDE)
        os.kill(session.pane[0], signal.SIGKILL)
        await until(lambda: self.lane(name, CLAUDE).session is not session, "the lane to notice")

    def log(self) -> str:
        """What the lanes wrote down."""
        path = self.paths.lifecycle_log
        return path.read_text(encoding="utf-8") if path.exists() else ""


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the records of a transcript; a last half line is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def texts_of(request: RecordedRequest) -> str:
    """All that was said to the model, by users and by the notes of the program."""
    return "\n".join((*request.user_texts, *request.system_texts))


@asynccontextmanager
async def open_claude(
    base: Path, path: str, model: SimulatedModel, *peers: str, **changes: Any
) -> AsyncIterator[ClaudeHouse]:
    """Open a house with claude peers and the program `op`; everything in it ends with the block."""
    base.mkdir(mode=0o700)
    house = ClaudeHouse(base, QUICK | changes, {"PATH": path})
    house.model = model
    move_in(house.home, model.url)
    try:
        house.hire(*peers)
        house.create("op", runtime="api")
        await house.start()
        yield house
        for name in peers:
            if house.lane(name, CLAUDE).session is not None:
                await house.fleet.stop(name, None)
    finally:
        try:
            await house.close()
        finally:
            house.clean_up()
