"""One Codex with an app-server of its own, for tests of the door and the channel."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Intelligence
from iapeer.core.ids import new_message_id
from iapeer.sessions.appserver import AppServerChannel
from iapeer.sessions.doors.appserver import AppServerDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.evidence import Fact
from iapeer.sessions.model import TmuxSession
from iapeer.testing.agents import SimulatedModel
from iapeer.testing.model_server import Call, Fail, Hold, RecordedRequest, Rule, Say, Slow
from tests.real.terminal_tap import Tap

RULES = (
    Rule("SLOWLY", (Slow(0.1), Say("one word after the other, and each takes its time"))),
    Rule("TOOL", (Call("exec_command", {"cmd": "sleep 1.5"}), Say("done"))),
    Rule(r"HELD ([\w/.-]+)", (Say("one moment"), Hold("$1"), Say("done"))),
    Rule("LIMITED", (Fail(status=429),)),
)
UNRESTRICTED = "--dangerously-bypass-approvals-and-sandbox"
DEADLINE_S = 10.0


async def until(done: Callable[[], object], what: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not done():
        assert loop.time() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.01)


class Codex:
    """One app-server, its terminal in a tmux server of its own, our channel and the door."""

    def __init__(self, program: Path, environ: dict[str, str], model: SimulatedModel) -> None:
        self.program, self.environ, self.model = program, environ, model
        home = Path(environ["HOME"])
        self.cwd = home / "w"
        self.cwd.mkdir()
        self.endpoint = home / "c.sock"
        self.facts: list[Fact] = []
        self.door = AppServerDoor()
        self.channel = AppServerChannel(str(self.endpoint), self.facts.extend)
        self.session = self.session_with(self.channel)
        self.server: subprocess.Popen[bytes] | None = None
        self.tap: Tap | None = None
        """What its terminal is connected through, if anything."""

    def session_with(self, channel: AppServerChannel) -> TmuxSession:
        spec = SimpleNamespace(submit=SimpleNamespace(mentions=False))
        fake = SimpleNamespace(channel=channel, preface="", spec=spec, cwd=self.cwd)
        return cast("TmuxSession", fake)

    async def up(self) -> None:
        self.start_server()
        await until(self.endpoint.exists, "the server listens")
        if self.tap is not None:
            await self.tap.start()
        self.tmux("set-option", "-g", "remain-on-exit", "on", ";", *self.terminal())
        await self.channel.start()
        await until(lambda: self.channel.native_id, "the terminal has a conversation")

    def terminal(self, *resume: str) -> tuple[str, ...]:
        remote = self.endpoint if self.tap is None else self.tap.path
        words = (str(self.program), *resume, "--remote", f"unix://{remote}")
        size = ("-x", "160", "-y", "50", "-c", str(self.cwd))
        # A conversation that goes on keeps its permissions; the program refuses to be told them.
        free = () if resume else (UNRESTRICTED,)
        return ("new-session", "-d", "-s", "m", *size, *words, *free)

    def start_server(self) -> None:
        self.server = subprocess.Popen(
            [self.program, "app-server", "--listen", f"unix://{self.endpoint}"],
            env=self.environ,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.endpoint.with_name("t.sock")), "-f", os.devnull, *words]
        return subprocess.run(
            command, env=self.environ, capture_output=True, encoding="utf-8", check=True
        ).stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "=m:")

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", "=m:", "-l", text)

    def key(self, name: str) -> None:
        self.tmux("send-keys", "-t", "=m:", name)

    async def type_new(self) -> None:
        """Type `/new`; the Enter is for the caller."""
        self.type("/new")
        await until(lambda: self.screen().count("/new") > 1, "the command is shown and offered")

    async def drawn_end(self) -> None:
        """Wait until the terminal knows of its first turn's end.

        It hears of it later than we do when it is short of time, and refuses `/new` till then.
        """
        await until(lambda: "Worked for" in self.screen(), "the turn is over on the screen, too")

    async def down(self) -> None:
        await self.channel.close()
        subprocess.run(
            ["tmux", "-S", str(self.endpoint.with_name("t.sock")), "kill-server"],
            env=self.environ,
            capture_output=True,
            check=False,
        )
        if self.tap is not None:
            await self.tap.close()
        if self.server is not None:
            self.kill_server()

    async def hand(self, body: str, *, dup: str | None = None, again: str = "") -> str:
        """Hand one message over and return its id."""
        found = again or new_message_id()
        envelope = letter(found, body, dup)
        marker = f"{found}-{2 if again else 1}"
        await self.give(self.session, envelope, marker)
        return found

    async def give(self, session: TmuxSession, envelope: Envelope, marker: str) -> None:
        """Hand a message over as a lane does when the machine is busy.

        An answer that is late is looked for. One that may be there already is looked for first,
        and when that takes longer than a lane's step nothing was handed over: it goes round again.
        """
        async with asyncio.timeout(20):
            outcome = await self.door.hand_over(session, envelope, marker)
            while outcome == HandOver.NOT_HANDED and envelope.dup:
                outcome = await self.door.hand_over(session, envelope, marker)
            while outcome == HandOver.UNCERTAIN:
                outcome = await self.door.finish(session, marker)
        assert outcome == HandOver.LANDED

    def ids(self) -> list[str]:
        return [i for fact in self.facts if fact.kind == "user" for i in fact.ids]

    def ends(self) -> list[str]:
        return [fact.status for fact in self.facts if fact.kind == "turn_end"]

    @property
    def asks(self) -> list[RecordedRequest]:
        """The requests of turns; the terminal asks for a title, too, without tools."""
        return [request for request in self.model.requests if request.has_tools]

    def asked(self, words: str) -> int:
        """In how many requests these words stand in the newest user text."""
        return sum(words in (request.user_texts or ("",))[-1] for request in self.asks)

    async def seen(self, message_id: str) -> None:
        await until(lambda: message_id in self.ids(), f"{message_id} is seen")

    async def ended(self, count: int) -> None:
        await until(lambda: len(self.ends()) >= count, f"{count} turns have ended")


def letter(message_id: str, body: str, dup: str | None = None) -> Envelope:
    return Envelope(
        from_personality="ann",
        from_runtime="claude",
        from_intelligence=Intelligence.ARTIFICIAL,
        ts="2026-01-01T12:00:00+00:00",
        body=body,
        id=message_id,
        dup=dup,
    )
