"""Small fakes of the five ports, and a running daemon edge around them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.draft import Draft, validate
from iapeer.core.errors import CallerError, PeerLive, PeerNotFound, SendRefused
from iapeer.core.identity import Identity, Intelligence, parse_identity
from iapeer.core.outcomes import SendResult
from iapeer.core.record import RegistryRecord
from iapeer.core.settings import Settings, make_settings
from iapeer.core.states import MessageState
from iapeer.daemon.server import DaemonServer
from iapeer.daemon.services import Services
from iapeer.registry.caller import Caller
from iapeer.routing.ports import (
    AttachPoint,
    InboxMessage,
    MessageQuery,
    MessageView,
    PeerView,
    SelfAnswer,
    Settled,
    Trace,
)

ALICE_TOKEN = "a1" * 32
BODY = "a body that no log may show"


def caller(address: str) -> Caller:
    identity = parse_identity(address)
    assert identity is not None
    record = RegistryRecord(
        personality=identity.personality,
        default_runtime=identity.runtime,
        runtimes=(identity.runtime,),
        intelligence=Intelligence.ARTIFICIAL,
        cwd="/nowhere",
    )
    return Caller(identity, record)


CALLERS = {name: caller(name) for name in ("claude-alice", "claude-bob", "service-ci-bot")}


@dataclass
class Sent:
    caller: str
    draft: Draft
    path: str
    key: str | None


@dataclass
class FakePostman:
    sent: list[Sent] = field(default_factory=list)
    block: asyncio.Event | None = None

    async def send(
        self, caller: Caller, draft: Draft, *, path: str, key: str | None = None
    ) -> SendResult:
        if draft.to == "crash":
            raise RuntimeError(f"a defect that quotes {draft.message}")
        validate(draft)
        if draft.to == "nobody":
            raise PeerNotFound("unknown peer 'nobody'", hint="iapeer list shows who is there")
        if draft.to == "flooded":
            raise SendRefused("too many waiting", code="queue_full", retry_after_s=7)
        if self.block is not None:
            await self.block.wait()
        self.sent.append(Sent(caller.address, draft, path, key))
        return SendResult(
            message_id="abcdefghijkl",
            personality=draft.to,
            runtime=draft.runtime or "claude",
            state=MessageState.LANDED,
            ts="2026-11-22T15:00:00+00:00",
        )

    async def trace(self, message_id: str) -> Trace:
        raise PeerNotFound(f"no message {message_id}")


@dataclass
class FakeFleet:
    calls: list[tuple[object, ...]] = field(default_factory=list)

    async def peers(self) -> list[PeerView]:
        return [
            PeerView(
                personality=c.identity.personality,
                default_runtime=c.identity.runtime,
                intelligence="artificial",
                description="",
                cwd="/nowhere",
                runtimes=(c.identity.runtime,),
                statuses={c.identity.runtime: "asleep"},
            )
            for c in CALLERS.values()
        ]

    async def stop(self, personality: str, runtime: str | None) -> dict[str, str]:
        self.calls.append(("stop", personality, runtime))
        return {"claude": "stopped"}

    async def start(self, personality: str, runtime: str | None) -> dict[str, str]:
        self.calls.append(("start", personality, runtime))
        return {"claude": "started"}

    async def wake(self, personality: str, runtime: str | None) -> AttachPoint:
        self.calls.append(("wake", personality, runtime))
        return AttachPoint(identity="claude-bob", socket="/s", session="claude-bob", woke=True)

    async def interrupt(self, personality: str, runtime: str | None) -> str:
        self.calls.append(("interrupt", personality, runtime))
        return "claude-bob"

    async def compact(self, personality: str, runtime: str | None) -> tuple[str, bool]:
        self.calls.append(("compact", personality, runtime))
        return "claude-bob", False

    async def new(self, personality: str, runtime: str | None) -> str:
        self.calls.append(("new", personality, runtime))
        return "claude-bob"

    async def launch(self, personality: str, runtime: str | None) -> AttachPoint:
        self.calls.append(("launch", personality, runtime))
        return AttachPoint(identity="claude-bob", socket="/s", session="claude-bob", woke=True)

    async def refresh(self, personality: str, runtime: str | None) -> dict[str, str]:
        self.calls.append(("refresh", personality, runtime))
        return {"claude": "refresh-armed"}

    async def remove(self, personality: str, *, force: bool) -> dict[str, Any]:
        self.calls.append(("remove", personality, force))
        if not force:
            raise PeerLive(f"{personality} is running", hint="use --force")
        return {"removed": personality}

    async def rename(self, old: str, new: str) -> dict[str, Any]:
        self.calls.append(("rename", old, new))
        return {"renamed": new}

    async def status(self) -> dict[str, Any]:
        return {"live": 0}


@dataclass
class FakeOwn:
    calls: list[tuple[str, str]] = field(default_factory=list)

    async def done(self, session_id: str) -> SelfAnswer:
        self.calls.append(("done", session_id))
        return SelfAnswer(identity="claude-bob", ephemeral=True)

    async def fresh(self, session_id: str) -> SelfAnswer:
        self.calls.append(("fresh", session_id))
        return SelfAnswer(identity="claude-bob", ephemeral=False)


@dataclass
class FakeArchive:
    calls: list[tuple[object, ...]] = field(default_factory=list)

    async def messages(self, query: MessageQuery) -> list[MessageView]:
        self.calls.append(("messages", query))
        return [self.view(body=BODY if query.bodies else None)]

    async def dead_letters(self, peer: str | None, limit: int) -> list[MessageView]:
        self.calls.append(("dead_letters", peer, limit))
        return [self.view()]

    async def redeliver(self, ids: Sequence[str], path: str) -> list[Settled]:
        self.calls.append(("redeliver", ids, path))
        return [Settled(id=message_id, new_id="b" * 12) for message_id in ids]

    async def drop(self, ids: Sequence[str]) -> list[Settled]:
        self.calls.append(("drop", ids))
        return [Settled(id=message_id) for message_id in ids]

    @staticmethod
    def view(body: str | None = None) -> MessageView:
        return MessageView(
            id="a" * 12,
            at=1.0,
            accepted_ts="2026-11-22T15:00:00+00:00",
            sender="claude-alice",
            recipient="claude-bob",
            state="failed",
            reason="gone",
            topic=None,
            length=len(BODY),
            dup=False,
            purged=False,
            quote="a body",
            body=body,
        )


@dataclass
class FakeEvidence:
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def hook_event(self, session_id: str, event: Mapping[str, object]) -> int:
        text = str(event["prompt"])
        self.seen.append((session_id, text))
        return 1


class FakeInbox:
    """Offers what is not acknowledged, oldest first, again to every new stream.

    As in the real one, an ack counts only for what the present stream has shown."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[InboxMessage]] = {}
        self.acked: list[tuple[str, str]] = []
        self.opened = 0
        self.closed = 0
        self.in_flight: dict[str, set[str]] = {}
        self.changed = asyncio.Condition()
        self.ended = asyncio.Event()
        self.current: dict[str, object] = {}

    async def put(self, address: str, message: InboxMessage) -> None:
        self.queues.setdefault(address, deque()).append(message)
        async with self.changed:
            self.changed.notify_all()

    def open(self, caller: Caller) -> AsyncIterator[InboxMessage]:
        return self._stream(caller.address)

    async def _stream(self, address: str) -> AsyncIterator[InboxMessage]:
        if address.startswith("claude-"):
            raise SendRefused("runtime claude has no inbox", code="no_inbox")
        me = object()
        self.current[address] = me
        self.opened += 1
        shown = self.in_flight[address] = set()
        async with self.changed:
            self.changed.notify_all()
        try:
            while self.current[address] is me:
                queue = self.queues.get(address, deque())
                message = next((m for m in queue if m.id not in shown), None)
                if message is None:
                    async with self.changed:
                        await self.changed.wait()
                    continue
                shown.add(message.id)
                yield message
        finally:
            self.closed += 1
            self.ended.set()

    async def ack(self, caller: Caller, message_id: str) -> bool:
        self.acked.append((caller.address, message_id))
        queue = self.queues.get(caller.address, deque())
        shown = self.in_flight.get(caller.address, set())
        found = [m for m in queue if m.id == message_id and m.id in shown]
        for message in found:
            queue.remove(message)
        async with self.changed:
            self.changed.notify_all()
        return bool(found)

    async def until(self, predicate: Any) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(predicate)


class FakeTokens:
    async def caller_of(self, token: str) -> Caller | None:
        return CALLERS["claude-alice"] if token == ALICE_TOKEN else None

    async def session_of(self, token: str) -> str | None:
        return "session-1" if token == ALICE_TOKEN else None

    async def registered(self, address: str) -> Caller:
        if parse_identity(address) is None:
            raise CallerError("missing or malformed x-iapeer-identity header")
        if address not in CALLERS:
            raise CallerError(f"unknown caller {address!r}: not registered")
        return CALLERS[address]


@dataclass
class Edge:
    """A running server and its fakes."""

    server: DaemonServer
    settings: Settings
    postman: FakePostman
    fleet: FakeFleet
    evidence: FakeEvidence
    inbox: FakeInbox
    archive: FakeArchive = field(default_factory=FakeArchive)

    @property
    def sock(self) -> str:
        return str(self.settings.daemon_socket)

    @property
    def environ(self) -> dict[str, str]:
        return {env.DAEMON_SOCKET: self.sock}

    async def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Make a request on the unix socket; `_` in a header's name is a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await asyncio.to_thread(
            hot.request, method, path, body, socket_path=self.sock, headers=named
        )

    async def tcp(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Make a request over TCP; returns status, headers and body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        named = {
            "Host": f"127.0.0.1:{self.server.port}",
            "Connection": "close",
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        raw = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data
        return parse(await self.raw(raw))

    async def raw(self, data: bytes) -> bytes:
        """Send bytes over TCP and read what comes until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(data)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


def parse(raw: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, json.loads(body) if body else None


def make_root() -> Path:
    """Return a short private folder: a unix socket's path holds 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="iap", dir="/tmp"))


def settings_for(root: Path, **flags: Any) -> Settings:
    environ = {env.HOME: str(root), env.ROOT: str(root / "r"), env.PORT: "0"}
    return make_settings(environ, flags=flags)


def make_server(settings: Settings) -> Edge:
    postman, fleet, evidence, inbox = FakePostman(), FakeFleet(), FakeEvidence(), FakeInbox()
    archive = FakeArchive()
    services = Services(
        postman=postman,
        archive=archive,
        fleet=fleet,
        own=FakeOwn(),
        evidence=evidence,
        inbox=inbox,
        tokens=FakeTokens(),
        version="9.8.7",
    )
    return Edge(
        DaemonServer(settings, services), settings, postman, fleet, evidence, inbox, archive
    )


@asynccontextmanager
async def running(root: Path, **flags: Any) -> AsyncIterator[Edge]:
    edge = make_server(settings_for(root, **flags))
    await edge.server.start()
    try:
        yield edge
    finally:
        await edge.server.stop()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def child_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    import iapeer

    source = Path(iapeer.__file__).parents[1]
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(source), **(extra or {})}


def cleanup(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)


__all__ = ["ALICE_TOKEN", "BODY", "CALLERS", "Edge", "Identity", "caller", "running"]
