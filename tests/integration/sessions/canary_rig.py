"""Real tmux servers with their hooks and recorders, one root for each test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from iapeer.core.clock import SystemClock
from iapeer.core.errors import TmuxError
from iapeer.sessions import process
from iapeer.sessions.canary import Canaries, Watched, exit_hooks
from iapeer.sessions.canary.marks import Mark, read_mark
from iapeer.sessions.ends import Ends, Remains
from iapeer.sessions.forensics.coroner import Scene, boot_id
from iapeer.sessions.forensics.exits import ExitLine, read
from iapeer.sessions.tmux.server import TmuxServer
from iapeer.storage.atomic import ensure_private_dir
from iapeer.storage.ledger import postmortems
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import Birth, NewSession, PostmortemRow
from iapeer.storage.ledger.store import Ledger
from iapeer.storage.paths import Paths

IDENTITY = "demo-ann"
TOKEN = "f3" * 32
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
FOREVER = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
GRACE_S = 2.0
"""What a recorder waits before it writes."""


@dataclass
class Body:
    """One running session of the rig."""

    watched: Watched
    tmux: TmuxServer
    pane: tuple[int, int]

    @property
    def server(self) -> tuple[int, int]:
        assert self.watched.server is not None
        return self.watched.server

    @property
    def session_id(self) -> str:
        return self.watched.session_id


@dataclass
class Rig:
    """A root without a daemon: what a launcher does, by hand."""

    base: Path
    paths: Paths
    canaries: Canaries
    ledger: Ledger
    tmux: str
    bodies: list[Body] = field(default_factory=list)

    @property
    def ends(self) -> Ends:
        return Ends(self.canaries, self.ledger, SystemClock())

    async def begin(
        self, *argv: str, identity: str = IDENTITY, ready: bool = True, armed: bool = True
    ) -> Body:
        """Start a server with its hooks, its row, and its recorder."""
        session_id = str(uuid.uuid4())
        socket = self.base / f"{identity}.sock"
        tmux = TmuxServer(
            socket, binary=self.tmux, hooks=exit_hooks(self.paths, identity, session_id)
        )
        runtime, _, personality = identity.partition("-")
        new = NewSession(
            id=session_id,
            uid=f"uid-{personality}",
            runtime=runtime,
            personality=personality,
            token_sha256="",
            cwd=str(self.base),
            socket=str(socket),
            mode="fresh",
            started_at=time.time(),
            boot_id=boot_id(),
        )
        await self.ledger.write(lambda c: rows.open_session(c, new))
        birth = await tmux.start(identity, argv or FOREVER, cwd=self.base, env=ENV)
        born = Birth(
            server_pid=birth.server_pid,
            server_start=birth.server_start,
            pane_id=birth.pane_id,
            pane_pid=birth.pane_pid,
            pane_start=birth.pane_start or 0,
        )
        await self.ledger.write(lambda c: rows.set_birth(c, session_id, born))
        if ready:
            await self.ledger.write(lambda c: rows.mark_ready(c, session_id, time.time()))
        server = (birth.server_pid, birth.server_start)
        watched = Watched(session_id, identity, socket, server)
        body = Body(watched, tmux, (birth.pane_pid, birth.pane_start or 0))
        self.bodies.append(body)
        if armed:
            assert await self.canaries.ensure(watched) == "spawned"
            (self.base / "armed").touch()
        return body

    async def end(self, body: Body, cause: str = "stopped", *, seen: bool = True) -> Scene | None:
        """End a session as a launcher does."""
        scene = await self.ends.look(Remains(body.watched, body.tmux, time.time(), seen=seen))
        await body.tmux.kill()
        await self.ends.write(body.session_id, cause, scene)
        return scene

    def mark(self, body: Body) -> Mark:
        """Who records for this session right now."""
        found = read_mark(self.paths.canary_mark(body.session_id))
        assert found is not None
        return found

    def lines(self, body: Body | None = None) -> list[ExitLine]:
        return [
            line
            for line in read(self.paths.exits_log)
            if body is None or line.session == body.session_id
        ]

    def reports(self) -> list[Path]:
        return sorted(self.paths.server_deaths.iterdir())

    async def line(self, body: Body) -> ExitLine:
        """Wait for the record of a session's end.

        tmux 3.3a misses a program's end now and then until it is asked, as a daemon does at once.
        """
        async with asyncio.timeout(20.0):
            while not self.lines(body):
                with contextlib.suppress(TmuxError):
                    await body.tmux.facts()
                await asyncio.sleep(0.02)
        return self.lines(body)[-1]

    async def dead(self, body: Body) -> None:
        """Wait until tmux knows that the program has ended; a lane waits for this as well."""
        async with asyncio.timeout(20.0):
            while True:
                facts = await body.tmux.facts()
                if facts is not None and facts.pane_dead:
                    return
                await asyncio.sleep(0.002)

    async def report(self) -> str:
        """Wait for the only report and return it whole."""

        def whole() -> bool:
            found = self.reports()
            return bool(found) and found[0].read_text(encoding="utf-8").endswith("--- end\n")

        await until(whole, timeout_s=40.0)
        (path,) = self.reports()
        assert path.stat().st_mode & 0o777 == 0o600
        return path.read_text(encoding="utf-8")

    async def verdict(self, body: Body, *, is_it: Callable[[PostmortemRow], bool]) -> PostmortemRow:
        """Wait until the ledger tells what a session died of, in the way `is_it` accepts."""
        found: list[PostmortemRow] = []

        def look() -> bool:
            with offline_read(self.paths.ledger) as conn:
                row = postmortems.of_session(conn, body.session_id)
            found[:] = [row] if row is not None else []
            return row is not None and is_it(row)

        await until(look, timeout_s=40.0)
        return found[0]

    async def silent(self) -> None:
        """Wait out the grace of every recorder, and see that none has written anything."""
        await until(lambda: not recorders(self.base), timeout_s=GRACE_S + 10)
        assert self.lines() == []
        assert self.reports() == []

    def plant(self, sql: str, *values: object) -> None:
        with offline(self.paths.ledger) as conn:
            conn.execute(sql, values)


def recorders(base: Path) -> list[str]:
    """Command lines of living shells and clients of canaries, and of what they have started."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            line = Path(f"/proc/{int(entry)}/cmdline").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except (ValueError, OSError):
            continue
        is_ours = str(base).encode() in line
        about = b"canary.sh" in line or b"wait-for" in line or b"forensics" in line
        if is_ours and about and state.split()[0] not in "ZX":
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


async def until(is_true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_true():  # noqa: ASYNC110 - other processes set no asyncio.Event
            await asyncio.sleep(0.02)


WHEN_ARMED = "import os, time\nwhile not os.path.exists('armed'): time.sleep(0.01)\n"
"""Python that waits until `begin` has armed the recorder; a program that ends sooner dismisses it
before it is counted."""


@asynccontextmanager
async def open_rig(name: str = "r", *, client: str = "") -> AsyncIterator[Rig]:
    """Open a root; every process of it ends with the block.

    `client` is a shell script that recorders wait with, in place of tmux.
    """
    base = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    paths = Paths(base / name)
    for folder in paths.private_dirs():
        ensure_private_dir(folder)
    tmux = shutil.which("tmux") or "tmux"
    ledger = Ledger.open(paths.ledger, 5.0)
    waits_with = tmux
    if client:
        program = base / "tmux"
        program.write_text(f"#!/bin/sh\n{client}\n", encoding="utf-8")
        program.chmod(0o700)
        waits_with = str(program)
    canaries = Canaries(paths, waits_with)
    canaries.prepare()
    rig = Rig(base, paths, canaries, ledger, tmux)
    try:
        yield rig
    finally:
        for body in rig.bodies:
            await canaries.silence(body.watched)
            await body.tmux.close()
            for pid, start in (body.server, body.pane):
                if process.is_alive(pid, start):
                    os.kill(pid, signal.SIGKILL)
        await canaries.close()
        ledger.close()
        await until(lambda: not recorders(base), timeout_s=40.0)
        shutil.rmtree(base, ignore_errors=True)
