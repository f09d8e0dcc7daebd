"""An app-server on a unix socket that speaks as the real one does, and misbehaves when told to.

Replies, refusals and notifications have the members, and come in the order, that were recorded
from Codex CLI 0.169.0 with a terminal attached; members nobody reads are left out.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

THREAD = "01a20476-f60a-7512-9901-08807c7baefc"


_NEED_A_TURN = ("thread/resume", "thread/turns/list")


class Conversation:
    """One thread: turns in order, queue in order."""

    def __init__(self, thread: str) -> None:
        self.id = thread
        self.status = "idle"
        self.ephemeral = False
        self.turns: list[dict[str, Any]] = []
        self.queue: list[dict[str, Any]] = []
        self.behind: list[list[dict[str, Any]]] = []
        """What the next lists of turns hold, instead of what is true."""

    def listed(self, method: str) -> list[dict[str, Any]]:
        """Return its turns as the list has them now."""
        is_behind = method == "thread/turns/list" and self.behind
        return self.behind.pop(0) if is_behind else self.turns

    def copied(self) -> list[dict[str, Any]]:
        return copy.deepcopy(self.turns)

    @property
    def record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "ephemeral": self.ephemeral,
            "parentThreadId": None,
            "threadSource": "user",
            "status": {"type": self.status},
            "path": f"/codex/sessions/rollout-{self.id}.jsonl",
            "turns": [],
        }

    def enqueue(self, params: dict[str, Any]) -> dict[str, Any]:
        client_id = params["clientUserMessageId"]
        entry = {"id": f"q-{client_id}", "clientUserMessageId": client_id}
        self.queue.append(entry | {"input": params["input"]})
        return self.queue[-1]


class AppServer:
    """`threads` are those in its memory; `calls` what was asked, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.threads: dict[str, Conversation] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.silent: set[str] = set()
        """Methods that are taken and never answered."""
        self.deadly: set[str] = set()
        """Methods that are taken, and then the connection breaks."""
        self.refusing: dict[str, str] = {}
        self.meanwhile: dict[str, Callable[[], Awaitable[object]]] = {}
        """What happens, once, between the making of a method's reply and its sending."""
        self._connections: dict[ServerConnection, set[str]] = {}
        """With the threads whose news each has asked for."""
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = await unix_serve(self._serve, str(self.path), compression=None)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Break every connection, without a goodbye."""
        for connection in self._connections:
            connection.transport.abort()

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        """Tell everybody; what happens in turns only those who asked for it."""
        is_news = method.startswith(("turn/", "item/")) and params["threadId"] in self.threads
        for connection, threads in list(self._connections.items()):
            if not is_news or params["threadId"] in threads:
                await connection.send(json.dumps({"method": method, "params": params}))

    async def send_raw(self, text: str) -> None:
        for connection in self._connections:
            await connection.send(text)

    def add(self, thread: str = THREAD) -> Conversation:
        self.threads[thread] = Conversation(thread)
        return self.threads[thread]

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == method]

    # --- what happens in a thread ---

    async def open_thread(self, thread: str = THREAD) -> Conversation:
        found = self.add(thread)
        await self.tell("thread/started", {"thread": found.record})
        return found

    async def begin(self, thread: str, turn: str, client_id: str | None = None) -> None:
        found = self.threads[thread]
        found.status = "active"
        found.turns.append({"id": turn, "items": [], "status": "inProgress", "error": None})
        await self.status(thread)
        await self.tell("turn/started", {"threadId": thread, "turn": found.turns[-1]})
        if client_id is not None:
            await self.say(thread, client_id)

    async def begin_unheard(self, thread: str, turn: str, client_id: str) -> None:
        """Begin a turn with a message in it before anybody can ask for its news."""
        found = self.threads[thread]
        found.status = "active"
        begun: dict[str, Any] = {"id": turn, "status": "inProgress", "error": None}
        said = {"type": "userMessage", "id": f"item-{turn}-{client_id}", "clientId": client_id}
        found.turns.append(begun | {"items": [said]})
        await self.status(thread)

    async def say(self, thread: str, client_id: str) -> None:
        turn = self.threads[thread].turns[-1]
        item: dict[str, Any] = {"type": "userMessage", "id": f"item-{turn['id']}-{client_id}"}
        item |= {"clientId": client_id, "content": []}
        turn["items"].append(item)
        await self.tell("item/completed", {"threadId": thread, "turnId": turn["id"], "item": item})

    async def end(
        self, thread: str, status: str = "completed", error: dict[str, Any] | None = None
    ) -> None:
        found = self.threads[thread]
        found.status = "idle"
        found.turns[-1] |= {"status": status, "error": error, "completedAt": 1_795_371_236}
        await self.status(thread)
        await self.tell("turn/completed", {"threadId": thread, "turn": found.turns[-1]})

    async def status(self, thread: str) -> None:
        status = {"type": self.threads[thread].status}
        await self.tell("thread/status/changed", {"threadId": thread, "status": status})

    # --- requests ---

    async def _serve(self, connection: ServerConnection) -> None:
        self._connections[connection] = set()
        try:
            async for data in connection:
                await self._take(connection, json.loads(data))
        except ConnectionClosed:
            pass
        finally:
            del self._connections[connection]

    async def _take(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        method, params = frame["method"], frame.get("params", {})
        self.calls.append((method, params))
        if "id" not in frame or method in self.silent:
            return
        if method in self.deadly:
            connection.transport.abort()
            return
        reply = self._reply(method, params)
        refused = isinstance(reply, str)
        if method == "thread/resume" and not refused:
            self._connections[connection].add(params["threadId"])
        answer = {"error": {"code": -32600, "message": reply}} if refused else {}
        text = json.dumps({"id": frame["id"], "result": reply, **answer})
        if not refused and method in self.meanwhile:
            await self.meanwhile.pop(method)()
        await connection.send(text)

    def _reply(self, method: str, params: dict[str, Any]) -> dict[str, Any] | str:
        if method in self.refusing:
            return self.refusing[method]
        if "threadId" not in params:
            return {"data": list(self.threads), "nextCursor": None}
        thread = self.threads.get(params["threadId"])
        if thread is None:
            return f"thread not found: {params['threadId']}"
        if method in _NEED_A_TURN and not thread.turns:
            return f"no rollout found for thread id {thread.id}"
        if method == "thread/queue/add":
            return {"queuedSubmission": thread.enqueue(params)}
        replies: dict[str, dict[str, Any]] = {
            "thread/read": {"thread": thread.record},
            "thread/resume": {"thread": thread.record},
            "thread/turns/list": {"data": thread.listed(method)[::-1], "nextCursor": None},
            "thread/queue/list": {"data": thread.queue, "nextCursor": None},
        }
        return replies.get(method, {})


async def until(done: Any, what: str, timeout_s: float = 30.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not done():
        assert loop.time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.005)
