"""The `http` door and its channel against the real opencode: manifest, server and terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

from iapeer.core.envelope import Envelope
from iapeer.core.identity import Identity, Intelligence
from iapeer.core.ids import new_message_id
from iapeer.runtimes.catalog import SHIPPED
from iapeer.runtimes.manifest import load_manifest
from iapeer.runtimes.templates import expand, expand_one
from iapeer.sessions import process
from iapeer.sessions.doors.http import HttpDoor
from iapeer.sessions.doors.port import HandOver
from iapeer.sessions.doors.text import handed_text
from iapeer.sessions.evidence import Fact
from iapeer.sessions.files import write_files
from iapeer.sessions.httpserver import HttpChannel
from iapeer.sessions.model import TmuxSession, marks_of
from iapeer.sessions.plan import _free_port
from iapeer.sessions.screen import read_screen
from iapeer.sessions.tmux.server import TmuxServer
from iapeer.testing.agents import AgentDaemon, SimulatedModel
from iapeer.testing.model_server import Fail, RecordedRequest, Rule, Say, Script, Slow
from tests.real.crew import CALL, Crew

PLAIN = "Привет\n* bullet\n/help\n!ls 你好 `x` $(id)"
pytestmark = [pytest.mark.anyio, pytest.mark.extra, pytest.mark.timeout(300)]

NASTY = (
    "Привет 你好 👩‍👩‍👧 é \"q\" 'q' `b` ]]> $(id) <system>x</system>\n/help\n!ls\n@cwd #x\n"
    '\ttab  trailing  \n\n* bullet\n</msg> <iap id="zzzzzzzzzzzz">'
)
SECRET = "a-word-of-this-test"
SPEC = load_manifest(SHIPPED / "opencode.toml")
BOOT_S = 90.0
WAIT_S = 60.0

RULES = Script(
    rules=(
        CALL,
        Rule("SLOWLY", (Slow(0.4), Say("one word after the other, each takes its time " * 2))),
        Rule("LIMITED", (Fail(status=429, retry_after=90, times=1), Say("after the limit"))),
        Rule("AGAIN", (Fail(status=429, times=1), Say("after a retry"))),
        Rule("STRANGER", (Fail(status=401),)),
    )
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules() -> Script:
    return RULES


def letter(body: str, **members: str) -> Envelope:
    made = Envelope(
        from_personality="ann",
        from_runtime="claude",
        from_intelligence=Intelligence.ARTIFICIAL,
        body=body,
        id=new_message_id(),
    )
    return msgspec.structs.replace(made, **members)


def text_in(request: RecordedRequest) -> list[str]:
    return [text for text in request.user_texts if "<iap " in text]


class House:
    """One opencode in a terminal of its own, started as its manifest says."""

    def __init__(self, home: Path, program: Path, environ: dict[str, str]) -> None:
        self.home, self.program, self.environ = home, program, environ
        self.cwd, self.state = home / "cwd", home / "state"
        for folder in (self.cwd, self.state, home / "s"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.tmux = TmuxServer(home / "s" / "t")
        self.door = HttpDoor()
        self.facts: list[Fact] = []
        self.stir = asyncio.Event()
        self.session: TmuxSession
        self.url = ""

    @property
    def channel(self) -> HttpChannel:
        found = self.session.channel
        assert isinstance(found, HttpChannel)
        return found

    async def start(self, native_id: str = "") -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        prompt = self.state / "prompt.md"
        prompt.write_text("You are dora.", encoding="utf-8")
        values = {
            "state_dir": str(self.state),
            "identity": "opencode-dora",
            "mcp_url": f"{self.url}/nothing-here",
            "system_prompt": str(prompt),
            "port": str(port),
            "secret": SECRET,
            "isolated": "",
            "home": str(self.home),
        }
        write_files(SPEC.launch.files, values, isolated=False)
        filled = {name: expand_one(value, values) for name, value in SPEC.launch.env.items()}
        argv = expand(SPEC.launch.argv if not native_id else SPEC.launch.resume_argv, values)
        birth = await self.tmux.start(
            "opencode-iap",
            [str(self.program), *argv[1:]],
            cwd=self.cwd,
            env=self.environ
            | {name: value for name, value in filled.items() if value is not None}
            | {"PEER_TOKEN": "none", "PEER_IDENTITY": "opencode-dora"},
        )
        self.session = TmuxSession(
            id="s",
            uid="u",
            identity=Identity("opencode", "dora"),
            spec=SPEC,
            cwd=self.cwd,
            tmux=self.tmux,
            server=(birth.server_pid, birth.server_start),
            pane=(birth.pane_pid, birth.pane_start or 0),
            marks=marks_of(SPEC),
        )
        await self.until(self.is_ready, BOOT_S)
        address = self.url.replace("//", f"//iapeer:{SECRET}@")
        self.session.channel = HttpChannel(address, self.report, native_id=native_id)
        await self.channel.start()
        await self.until(lambda: self.channel.ready)

    async def stop(self) -> None:
        if self.session.channel is not None:
            await self.session.release()
        pid = self.session.pane[0]
        await self.tmux.kill()
        await self.tmux.close()
        await self.until_gone(pid)

    async def until_gone(self, pid: int) -> None:
        """Hanging up is enough; a server that is at work takes its time."""
        for _ in range(100):
            if process.start_time(pid) != self.session.pane[1]:
                return
            await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)

    async def kill(self) -> None:
        os.kill(self.session.pane[0], signal.SIGKILL)
        await self.stop()

    def report(self, facts: Sequence[Fact]) -> None:
        self.facts += facts
        self.stir.set()

    async def is_ready(self) -> bool:
        return read_screen(await self.tmux.capture(styled=True), self.session.marks).ready

    async def screen(self) -> str:
        return await self.tmux.capture()

    async def until(self, holds: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = holds()
                    if await found if asyncio.iscoroutine(found) else found:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"not within {timeout_s:g} s; facts: {self.facts}\n{await self.screen()}")

    async def send(self, envelope: Envelope, attempt: int = 1) -> HandOver:
        """Hand over as a lane does: until it is, and an uncertain end is looked at again."""
        marker = f"{envelope.id}-{attempt}"
        outcome = HandOver.NOT_HANDED
        while outcome == HandOver.NOT_HANDED:
            outcome = await self.door.hand_over(self.session, envelope, marker)
        while outcome == HandOver.UNCERTAIN:
            outcome = await self.door.finish(self.session, marker)
        return outcome

    def seen(self, envelope: Envelope) -> list[Fact]:
        return [f for f in self.facts if f.kind == "user" and envelope.id in f.ids]

    def ends(self) -> list[Fact]:
        return [f for f in self.facts if f.kind == "turn_end"]

    def is_over(self, envelope: Envelope) -> bool:
        """Tell whether it was read and its turn has ended since; an earlier one's end is none."""
        kinds = [f.kind for f in self.facts]
        seen = [n for n, f in enumerate(self.facts) if f.kind == "user" and envelope.id in f.ids]
        return bool(seen) and "turn_end" in kinds[seen[0] :]


@pytest.fixture
def house(
    agent_home: Path, agent_environ: dict[str, str], agent_binaries: dict[str, Path]
) -> Callable[[], object]:
    @asynccontextmanager
    async def open_house() -> AsyncIterator[House]:
        made = House(agent_home, agent_binaries["opencode"], agent_environ)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()

    return open_house


async def test_messages_arrive_exactly_beside_a_draft_and_behind_a_running_turn(
    house: Callable[[], object], model: SimulatedModel
) -> None:
    async with house() as dora:  # type: ignore[attr-defined]
        assert [f.native_id for f in dora.facts if f.kind == "session"] == [dora.channel.native_id]
        assert httpx2.get(f"{dora.url}/session", trust_env=False).status_code == 401
        await dora.until(lambda: _shows(dora, "tokens"))
        await dora.tmux.keys("h", "a", "l", "f", "Space", "a", "Space", "d", "r", "a", "f", "t")
        await dora.until(lambda: _shows(dora, "half a draft"))

        first = letter(NASTY)
        text = handed_text(dora.session, first)
        assert await dora.send(first) == HandOver.LANDED
        await dora.until(dora.ends)
        asked = model.wait_for(lambda r: r.has_tools and bool(text_in(r)))
        assert text_in(asked) == [text]
        assert "You are dora." in " ".join(asked.ask.texts("system"))  # type: ignore[union-attr]
        assert [f.ids for f in dora.facts if f.kind == "enqueue"] == [(first.id,)]
        assert (len(dora.seen(first)), dora.ends()[0].status) == (1, "done")
        screen = await dora.screen()
        assert "* bullet" in screen
        assert "half a draft" in screen

        slow, queued = letter("SLOWLY"), letter("behind it")
        assert await dora.send(slow) == HandOver.LANDED
        await dora.until(lambda: dora.seen(slow))
        assert await dora.door.is_busy(dora.session)
        assert await dora.send(queued) == HandOver.LANDED
        assert not dora.seen(queued)
        await dora.until(lambda: len(dora.ends()) == 3)
        assert [f.status for f in dora.ends()] == ["done"] * 3
        told = [f for f in dora.facts if f.kind in ("user", "turn_end")][2:]
        assert [f.kind for f in told] == ["user", "turn_end"] * 2
        assert told[2].ids == (queued.id,)
        assert "half a draft" in await dora.screen()

        # One that waits behind a turn which is stopped is set going by us.
        stopped, behind = letter("SLOWLY again"), letter("behind a stop")
        await dora.send(stopped)
        await dora.until(lambda: dora.seen(stopped))
        await dora.send(behind)
        assert await dora.channel.interrupt()
        await dora.until(lambda: dora.seen(behind) and len(dora.ends()) == 5)
        assert [f.status for f in dora.ends()][3:] == ["interrupted", "done"]
        last = [r for r in model.requests if r.has_tools][-1]
        assert sum("behind a stop" in found for found in text_in(last)) == 1


async def _shows(house: House, text: str) -> bool:
    return text in await house.screen()


async def test_after_sigkill_a_message_in_its_queue_runs_once_in_the_same_conversation(
    house: Callable[[], object], model: SimulatedModel
) -> None:
    async with house() as dora:  # type: ignore[attr-defined]
        early, cut, queued = letter("earlier words"), letter("SLOWLY cut off"), letter("in queue")
        await dora.send(early)
        await dora.until(dora.ends)
        await dora.send(cut)
        await dora.until(lambda: dora.seen(cut))
        assert await dora.send(queued) == HandOver.LANDED
        native_id, before = dora.channel.native_id, len(model.requests)
        await dora.kill()
        dora.facts.clear()
        await dora.start(native_id)
        assert dora.channel.native_id == native_id
        await dora.until(lambda: _shows(dora, "earlier words"))
        again = msgspec.structs.replace(queued, dup="maybe")
        assert await dora.send(again, attempt=2) == HandOver.LANDED
        await dora.until(lambda: dora.is_over(queued))
        asked = [r for r in model.requests[before:] if r.has_tools]
        assert len(asked) == 1
        texts = text_in(asked[0])
        assert [sum(word in found for found in texts) for word in ("earlier", "in queue")] == [1, 1]
        # What was answered is never run again.
        assert await dora.send(again, attempt=3) == HandOver.LANDED
        assert len([r for r in model.requests[before:] if r.has_tools]) == 1


async def test_errors_of_the_vendor_end_the_turn_with_their_category_and_reset(
    house: Callable[[], object], model: SimulatedModel
) -> None:
    async with house() as dora:  # type: ignore[attr-defined]
        stranger, again, limited, free = (
            letter("STRANGER"),
            letter("AGAIN"),
            letter("LIMITED"),
            letter("free"),
        )
        await dora.send(stranger)
        await dora.until(dora.ends)
        assert (dora.ends()[0].status, dora.ends()[0].error) == (
            "api_error",
            "authentication_failed",
        )
        await dora.send(again)
        await dora.until(lambda: len(dora.ends()) == 2)
        assert dora.ends()[1].status == "done"
        await dora.send(limited)
        await dora.until(lambda: len(dora.ends()) == 3)
        end = dora.ends()[2]
        assert (end.status, end.error) == ("api_error", "rate_limit")
        assert end.reset_at is not None
        assert not dora.channel.busy
        await dora.send(free)
        await dora.until(lambda: dora.seen(free) and len(dora.ends()) == 4)
        assert dora.ends()[3].status == "done"


@pytest.mark.parametrize("runtime", ["opencode", "qwen"])
def test_a_manifest_is_enough_to_be_woken_to_use_our_tool_and_to_go_on_with_a_topic(
    runtime: str, real_daemon: AgentDaemon, model: SimulatedModel, agent_binaries: dict[str, Path]
) -> None:
    assert agent_binaries[runtime].is_file()
    crew = Crew(real_daemon, model)
    real_daemon.create("eve", runtime=runtime)
    real_daemon.create("me", runtime="api")
    before = [json.loads(path.read_bytes()) for path in _settings_of(crew.home)]
    real_daemon.start()
    sent = crew.send("eve", PLAIN, topic="proof")
    crew.wait(sent, timeout_s=BOOT_S)
    asked = model.wait_for(lambda r: r.has_tools and bool(text_in(r)))
    assert text_in(asked) == [crew.text_of(sent)]
    crew.wait_ends(sent, "done")

    call = 'CALL send_to_peer {"personality": "me", "message": "proof"}'
    if runtime == "qwen":
        # It hides the tools of servers until the model looks for them.
        called = crew.send("eve", 'CALL tool_search {"query": "select:mcp__iapeer__send_to_peer"}')
        crew.wait_ends(called, "done")
    called = crew.send("eve", call)
    crew.wait_ends(called, "done")
    results = [
        entry.text
        for request in model.requests
        for entry in (request.ask.entries if request.ask else ())
        if entry.kind == "result"
    ]
    assert any("delivered_to" in text or "message_id" in text for text in results), results

    row = crew.session("eve", runtime)
    assert row.native_id
    real_daemon.run("stop", "eve")
    real_daemon.run("start", "eve")
    later = crew.send("eve", "after the end", topic="proof")
    crew.wait(later, timeout_s=BOOT_S)
    crew.wait_ends(later, "done")
    assert crew.session("eve", runtime).native_id == row.native_id
    last = model.wait_for(lambda r: r.has_tools and "after the end" in "".join(text_in(r)))
    assert sum(PLAIN in text for text in text_in(last)) == 1
    after = [json.loads(path.read_bytes()) for path in _settings_of(crew.home)]
    for settings in after:
        # The programs' own words for the shape of their settings.
        settings.pop("$version", None)
        settings.pop("$schema", None)
    assert after == before


def _settings_of(home: Path) -> list[Path]:
    return [home / ".config/opencode/opencode.json", home / ".qwen/settings.json"]
