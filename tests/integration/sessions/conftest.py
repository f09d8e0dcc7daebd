from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iapeer.sessions.tmux.exec import ExecClient
from iapeer.sessions.tmux.server import Birth, Mode, PaneFacts, TmuxServer

RECORDER = Path(__file__).with_name("recorder.py")
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "IAP_TEST": "yes"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["auto", "exec"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Both ways into tmux: every test that asks for it runs on each."""
    found: Mode = request.param
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A private folder with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@dataclass
class Rig:
    """A server on a private socket and a program that records what it is given."""

    folder: Path
    mode: Mode
    server: TmuxServer
    others: list[TmuxServer] = field(default_factory=list)
    may_fall_back: bool = False

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def recorder(self, *flags: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(RECORDER), str(self.log), *flags]

    async def start(self, argv: Sequence[str], session: str = "claude-iap") -> Birth:
        return await self.server.start(session, argv, cwd=self.folder, env=ENV)

    async def record(self, *flags: str) -> Birth:
        """Start the recorder and wait until it listens."""
        self.log.unlink(missing_ok=True)
        birth = await self.start(self.recorder(*flags))
        await until(self.log.exists)
        return birth

    def twin(self, mode: Mode, session: str = "claude-iap") -> TmuxServer:
        """Another object for the same server, as a restarted daemon would make."""
        server = TmuxServer(self.folder / "s.sock", mode=mode)
        server.adopt(session)
        self.others.append(server)
        return server

    async def raw(self, *command: str) -> list[str]:
        """Run one tmux command as a person would."""
        return await ExecClient(self.folder / "s.sock", "tmux").request([command])

    async def recorded(self, size: int) -> bytes:
        """Wait until the program has read `size` bytes and return all it has read."""
        await until(lambda: self.log.stat().st_size >= size)
        return self.log.read_bytes()


async def until(is_true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for an event that can only be looked at."""

    async def look() -> bool:
        return is_true()

    await until_async(look, timeout_s)


async def until_facts(server: TmuxServer, is_true: Callable[[PaneFacts], bool]) -> PaneFacts:
    """Wait until the facts are as told and return them."""
    last: list[PaneFacts] = []

    async def look() -> bool:
        facts = await server.facts()
        assert facts is not None
        last[:] = [facts]
        return is_true(facts)

    await until_async(look)
    return last[0]


async def until_dead(server: TmuxServer) -> PaneFacts:
    """Wait until tmux itself has seen the end of the program."""
    return await until_facts(server, lambda facts: facts.pane_dead)


async def shown(server: TmuxServer, text: str) -> None:
    """Wait until the screen holds `text`: tmux has read what the program printed."""

    async def look() -> bool:
        return text in await server.capture()

    await until_async(look)


async def until_async(look: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Wait for an event that must be asked for."""
    async with asyncio.timeout(timeout_s):
        while not await look():  # noqa: ASYNC110 - other processes set no asyncio.Event
            await asyncio.sleep(0.01)


def processes_with(text: str) -> list[str]:
    """Command lines of living processes that hold `text`."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            line = Path(f"/proc/{int(entry)}/cmdline").read_bytes()
        except (ValueError, OSError):
            continue
        if text.encode() in line:
            found.append(line.decode(errors="replace"))
    return found


@pytest.fixture
async def rig(short: Path, mode: Mode) -> AsyncIterator[Rig]:
    made = Rig(short, mode, TmuxServer(short / "s.sock", mode=mode))
    yield made
    for other in made.others:
        await other.close()
    await made.server.kill()
    assert made.may_fall_back or made.server.last_fallback == ""
    await until(lambda: not processes_with(str(short)))
    assert not (short / "s.sock").exists()
    assert not [name for name in os.listdir(short) if name.startswith(".")]
