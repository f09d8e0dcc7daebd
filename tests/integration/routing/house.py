"""A whole house in this process: real ledger, real tmux, real demo agents, short settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from iapeer.core import env
from iapeer.core.draft import Draft
from iapeer.core.envelope import decode
from iapeer.core.identity import Identity
from iapeer.core.outcomes import SendResult
from iapeer.core.settings import Settings, make_settings
from iapeer.daemon.server import DaemonServer
from iapeer.daemon.services import Services
from iapeer.host.run import running_daemon
from iapeer.registry.admin import BirthRules, CreateSpec, create
from iapeer.registry.caller import Caller, resolve_caller
from iapeer.registry.index import Registry
from iapeer.routing.lanes.lane import Lane
from iapeer.routing.lanes.pool import Lanes
from iapeer.routing.lanes.services import LaneServices
from iapeer.sessions.model import TmuxSession
from iapeer.sessions.process import is_alive
from iapeer.storage.ledger import messages, queries
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.ledger.rows import HistoryRow, MessageRow, NewMessage, SessionRow
from iapeer.storage.paths import Paths, launch_env_path, peer_state_dir
from iapeer.testing.recorders import end_recorders

QUICK: dict[str, Any] = {
    "port": 0,
    "wait_live_s": 3.0,
    "wait_waking_s": 20.0,
    "composer_poll_ms": 40,
    "busy_poll_ms": 40,
    "evidence_s": 0.7,
    "boot_backoff_s": 0.05,
    "boot_backoff_max_s": 0.3,
    "boot_deadline_s": 15.0,
    "audit_s": 60.0,
}
WAIT_S = 45.0


async def until(
    look: Callable[[], Any], reason: str = "", timeout_s: float = WAIT_S, poll_s: float = 0.02
) -> Any:
    """Wait for something that can only be looked at; `look` may be a coroutine function."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {reason or look}")
        await asyncio.sleep(poll_s)


@dataclass
class House:
    """One root; `start` opens the daemon in this process, `close` closes it as a restart does."""

    base: Path
    changes: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    _stack: AsyncExitStack | None = None
    lanes: Lanes = field(init=False)
    ports: Services = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.base / "r"
        self.go = self.base / "go"
        """Not there: a turn that is told `HOLD <this>` ends when a test makes it."""
        (self.base / "h").mkdir(mode=0o700)
        self.environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            env.HOME: str(self.base / "h"),
            env.ROOT: str(self.root),
            env.TEST_SANDBOX: "1",
            **self.environ,
        }
        self.paths = Paths(self.root)
        self.settings: Settings = make_settings(self.environ, flags={**QUICK, **self.changes})

    # -- before and around the daemon --------------------------------------------------------

    def runtime(self, name: str, text: str) -> None:
        """Write one manifest of the user's own."""
        self.settings.runtimes_dir.mkdir(parents=True, exist_ok=True)
        (self.settings.runtimes_dir / f"{name}.toml").write_text(text, encoding="utf-8")

    def create(self, *names: str, runtime: str = "demo", misbehave: str = "") -> None:
        registry = Registry(self.paths, sandbox=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            spec = CreateSpec(name=name, runtime=runtime)
            create(self.paths, registry, spec, BirthRules(known_runtimes=frozenset({runtime})))
            self.launch_env(name, f"DEMO_MISBEHAVE={misbehave}\n", runtime)

    def launch_env(self, name: str, text: str, runtime: str = "demo") -> None:
        path = launch_env_path(self.paths.peer_home(name), runtime)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    async def start(self) -> None:
        ports: list[Services] = []
        init = DaemonServer.__init__

        def keep(server: DaemonServer, settings: Settings, services: Services) -> None:
            ports.append(services)
            init(server, settings, services)

        async with AsyncExitStack() as stack:
            with mock.patch.object(DaemonServer, "__init__", keep):
                daemon = await stack.enter_async_context(
                    running_daemon(self.settings, self.environ)
                )
            self.lanes = daemon.lanes
            self._stack = stack.pop_all()
        self.ports = ports[0]
        self.router, self.fleet, self.inboxes = ports[0].postman, ports[0].fleet, ports[0].inbox

    async def close(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    @property
    def services(self) -> LaneServices:
        return self.lanes._s

    # -- talking to it ------------------------------------------------------------------------

    def caller(self, address: str) -> Caller:
        return resolve_caller(address, self.services.registry.snapshot(allow_stale=True))

    async def send(
        self,
        to: str,
        text: str = "NOTHING",
        sender: str = "api-op",
        key: str | None = None,
        **more: Any,
    ) -> SendResult:
        draft = Draft(to=to, message=text, **more)
        return await self.router.send(self.caller(sender), draft, path="http", key=key)

    def lane(self, name: str, runtime: str = "demo") -> Lane:
        record = self.services.registry.snapshot(allow_stale=True).require(name)
        return self.lanes.lane(record.uid, Identity(runtime, name))

    def session(self, name: str, runtime: str = "demo") -> TmuxSession:
        session = self.lane(name, runtime).session
        assert isinstance(session, TmuxSession)
        return session

    async def live(self, name: str, runtime: str = "demo") -> TmuxSession:
        """Wake a peer by a first message and return its session; it is idle from then on."""
        with self.awake(name, runtime):
            sent = await self.send(name)
            await self.wait(sent.message_id, "seen", "landed")
            return self.session(name, runtime)

    def awake(self, name: str, runtime: str = "demo") -> contextlib.AbstractContextManager[None]:
        """Let a peer's idle time begin at the end of the block, however slow the machine is."""
        record = self.services.registry.snapshot(allow_stale=True).require(name)
        self.lanes.lane(record.uid, Identity(runtime, name))
        return self.lanes.calling((record.uid, runtime))

    async def row(self, message_id: str) -> MessageRow:
        found = await self.services.ledger.read(lambda c: queries.get(c, message_id))
        assert found is not None
        return found

    async def history(self, message_id: str) -> list[HistoryRow]:
        return await self.services.ledger.read(lambda c: queries.history(c, message_id))

    async def count(self) -> int:
        return await self.services.ledger.read(
            lambda c: int(c.execute("SELECT count(*) FROM messages").fetchone()[0])
        )

    async def wait(self, message_id: str, *wanted: str, timeout_s: float = WAIT_S) -> MessageRow:
        """Wait until a message is in one of these states (or held for one of these reasons)."""

        async def look() -> MessageRow | None:
            row = await self.row(message_id)
            reason = row.reason if row.state == "held" else row.state
            return row if row.state in wanted or reason in wanted else None

        try:
            found: MessageRow = await until(look, timeout_s=timeout_s)
        except AssertionError:
            row = await self.row(message_id)
            steps = [(h.state.value, h.event, h.reason) for h in await self.history(message_id)]
            raise AssertionError(
                f"{message_id} is {row.state}/{row.reason}, not {wanted}: {steps}"
            ) from None
        return found

    async def sessions(self) -> list[SessionRow]:
        return await self.services.ledger.read(rows.all_sessions)

    async def live_rows(self) -> list[SessionRow]:
        return await self.services.ledger.read(rows.live_sessions)

    async def accept(self, to: str, body: str, runtime: str = "demo", **more: Any) -> str:
        """Put a message into the ledger as any entrance would, without a word to the lanes."""
        record = Registry(self.paths, sandbox=True).snapshot().require(to)
        now = self.services.clock.now()
        new = NewMessage(
            **{
                "id": f"{os.urandom(8).hex()[:12].translate(str.maketrans('0189', 'abcd'))}",
                "sender": "api-op",
                "sender_uid": "",
                "to_uid": record.uid,
                "personality": to,
                "runtime": runtime,
                "body": body,
                "accepted_ts": "2026-11-22T15:00:00+00:00",
                "expires_at": now + 1000,
                "path": "cli",
                "intelligence": "absent",
                **more,
            }
        )
        await self.services.ledger.write(lambda c: messages.accept(c, new, now))
        return new.id

    # -- what agents wrote down ---------------------------------------------------------------

    def records(self, name: str, runtime: str = "demo") -> list[dict[str, Any]]:
        folder = peer_state_dir(self.paths.peer_home(name), runtime)
        found = []
        for path in sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime):
            found += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def prompts(self, name: str, runtime: str = "demo") -> list[str]:
        return [str(r["text"]) for r in self.records(name, runtime) if r["type"] == "user"]

    def bodies(self, name: str) -> list[str]:
        """What peers said to a demo agent, as its own record tells; human input as it is."""
        return [decode(p).body if p.startswith("<iap ") else p for p in self.prompts(name)]

    # -- hands on the machine -----------------------------------------------------------------

    def tmux(self, name: str, *words: str, runtime: str = "demo") -> str:
        """Run one tmux command as a person would."""
        sock = next(self.settings.sock_dir.glob(f"*{runtime}-{name}.sock"))
        done = subprocess.run(
            ["tmux", "-N", "-S", str(sock), *words],
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=10,
            env={"PATH": self.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        return done.stdout

    def type(self, name: str, text: str, *keys: str, runtime: str = "demo") -> None:
        target = f"={runtime}-{name}:"
        if text:
            self.tmux(name, "send-keys", "-t", target, "-l", text, runtime=runtime)
        for key in keys:
            self.tmux(name, "send-keys", "-t", target, key, runtime=runtime)

    def composer(self, name: str) -> str:
        """The composer's rows of a demo agent."""
        shown = self.tmux(name, "capture-pane", "-p", "-t", f"=demo-{name}:")
        lines = [line for line in shown.split("\n") if line.startswith("❯")]
        return lines[-1].removeprefix("❯").strip("\u00a0 ") if lines else ""

    async def drawn(self, name: str, text: str) -> None:
        await until(lambda: self.composer(name) == text, f"{name} to show {text!r}")

    def processes(self) -> list[tuple[int, int]]:
        """(pid, start) of all tmux servers and programs the ledger ever knew."""
        if not self.paths.ledger.exists():
            return []
        with offline_read(self.paths.ledger) as conn:
            found = rows.all_sessions(conn)
        pairs = [(r.server_pid, r.server_start) for r in found]
        pairs += [(r.pane_pid, r.pane_start) for r in found]
        return [(pid, int(start)) for pid, start in pairs if pid and start]

    def leftovers(self) -> list[str]:
        """Living processes of this root, by command line, and hand-over files."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(ValueError, OSError):
                line = Path(f"/proc/{int(entry)}/cmdline").read_bytes()
                state = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2]
                if str(self.base).encode() in line and state.split()[0] not in "ZX":
                    found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        run = self.paths.run
        found += os.listdir(run) if run.exists() else []
        return found

    async def nothing_left(self) -> None:
        """Nothing of any session is there: no process, no hand-over file, no live row."""
        await until(lambda: not self.leftovers(), "all processes to end", timeout_s=15)
        assert not [pair for pair in self.processes() if is_alive(*pair)]
        assert not list(self.settings.sock_dir.glob("*.sock"))
        assert await self.live_rows() == []

    def clean_up(self) -> None:
        end_recorders(self.root)
        for pid, start in self.processes():
            if is_alive(pid, start):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.base, ignore_errors=True)


@asynccontextmanager
async def open_house(
    *peers: str,
    misbehave: str = "",
    environ: dict[str, str] | None = None,
    before: Callable[[House], None] = lambda _: None,
    **changes: Any,
) -> AsyncIterator[House]:
    """Open a house with demo peers and the program `op`; everything in it ends with the block.

    `before` may change what the daemon will find.
    """
    base = Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))
    house = House(base, changes, environ or {})
    try:
        house.create(*peers, misbehave=misbehave)
        house.create("op", runtime="api")
        before(house)
        await house.start()
        yield house
    finally:
        try:
            await house.close()
        finally:
            house.clean_up()
