"""A server that behaves as opencode's did when it was measured; tests set what it does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

NAME, SECRET = "iapeer", "a-word-of-this-test"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class FakeOpencode:
    """One server with sessions, their messages, and everybody who listens.

    `answers`: prompts are answered at once; else a turn runs until `finish`. `deaf`: prompts are
    taken and never stored. `slow_s`: how long each request takes. `refuse` a status for prompts.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.busy: set[str] = set()
        self.shown: list[str] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.prompts: list[dict[str, Any]] = []
        self.answers = True
        self.deaf = False
        self.slow_s = 0.0
        self.refuse = 0
        self.port = 0
        self._numbers = iter(range(1, 1_000_000))
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"http://{NAME}:{SECRET}@127.0.0.1:{self.port}"

    async def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=["GET", "POST"])])
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listener]))
        server = self._server
        await until(lambda: server.started)

    async def stop(self) -> None:
        """End as a killed process does: every stream breaks off."""
        if self._server is None or self._serving is None:
            return
        for queue in self._listeners:
            queue.put_nowait(None)
        self._server.should_exit = True
        await self._serving
        self._server = None

    def tell(self, kind: str, **properties: Any) -> None:
        frame = {"id": "evt_1", "type": kind, "properties": properties}
        for queue in self._listeners:
            queue.put_nowait(f"data: {json.dumps(frame)}\n\n".encode())

    def add_session(self, **more: Any) -> str:
        session_id = f"ses_{next(self._numbers)}"
        self.sessions[session_id] = {"id": session_id, **more}
        self.messages[session_id] = []
        return session_id

    def store(self, session_id: str, native: str, text: str, *, tells: bool = True) -> None:
        info = {"id": native, "role": "user", "sessionID": session_id, "time": {"created": 1}}
        info["model"] = {"providerID": "p", "modelID": "m"}
        part = {"type": "text", "text": text, "messageID": native, "sessionID": session_id}
        kept = self.messages[session_id]
        if all(message["info"]["id"] != native for message in kept):
            kept.append({"info": info, "parts": [part]})
        if tells:
            self.tell("message.updated", sessionID=session_id, info=info)
            self.tell("message.part.updated", sessionID=session_id, part=part)

    def begin(self, session_id: str, parent: str, *, tells: bool = True) -> dict[str, Any]:
        """Begin an answer; the turn runs until `finish`."""
        native = f"msg_{int(time.time() * 1000) * 4096 & (1 << 48) - 1:012x}{next(self._numbers)}"
        info = {
            "id": native,
            "role": "assistant",
            "parentID": parent,
            "sessionID": session_id,
            "time": {"created": 1},
        }
        self.messages[session_id].append({"info": info, "parts": []})
        self.busy.add(session_id)
        if tells:
            self.tell("session.status", sessionID=session_id, status={"type": "busy"})
            self.tell("message.updated", sessionID=session_id, info=info)
        return info

    def finish(self, session_id: str, *, tells: bool = True, **more: Any) -> None:
        """End what runs, well unless `more` says otherwise."""
        info = self.messages[session_id][-1]["info"]
        if info["role"] == "assistant":
            info["time"] = {"created": 1, "completed": time.time() * 1000}
            info.update(more or {"finish": "stop"})
        self.busy.discard(session_id)
        if tells:
            self.tell("message.updated", sessionID=session_id, info=info)
            self.tell("session.status", sessionID=session_id, status={"type": "idle"})
            self.tell("session.idle", sessionID=session_id)

    # --- requests -----------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Response:
        given = base64.b64encode(f"{NAME}:{SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {given}":
            return Response(status_code=401)
        path = request.url.path
        body = await request.body()
        said = json.loads(body) if body else None
        self.asked.append((request.method, path, said))
        await asyncio.sleep(self.slow_s)
        if path == "/event":
            return StreamingResponse(self._listen(), media_type="text/event-stream")
        return self._answer(path, said)

    def _answer(self, path: str, said: Any) -> Response:
        match path.split("/")[1:]:
            case ["session", "status"]:
                return JSONResponse({session_id: {"type": "busy"} for session_id in self.busy})
            case ["session"]:
                return JSONResponse(self.sessions[self.add_session(title=said["title"])])
            case ["tui", "select-session"]:
                self.shown.append(said["sessionID"])
                return JSONResponse(content=True)
            case ["session", session_id, *rest] if session_id in self.sessions:
                return self._of_session(session_id, "".join(rest), said)
        return JSONResponse({"name": "NotFoundError"}, 404)

    def _of_session(self, session_id: str, what: str, said: Any) -> Response:
        match what:
            case "":
                return JSONResponse(self.sessions[session_id])
            case "message":
                return JSONResponse(self.messages[session_id][-50:])
            case "abort":
                found = {"name": "MessageAbortedError", "data": {"message": "Aborted"}}
                self.tell("session.error", sessionID=session_id, error=found)
                self.finish(session_id, error=found)
                return JSONResponse(content=True)
            case "summarize":
                self.tell("session.compacted", sessionID=session_id)
                return JSONResponse(content=True)
            case _:
                return self._prompt(session_id, said)

    def _prompt(self, session_id: str, said: Any) -> Response:
        if self.refuse:
            return Response(status_code=self.refuse)
        self.prompts.append(said)
        if self.deaf:
            return Response(status_code=204)
        native = said["messageID"]
        self.store(session_id, native, "".join(part["text"] for part in said["parts"]))
        if session_id not in self.busy:
            self.begin(session_id, native)
            if self.answers:
                self.finish(session_id)
        return Response(status_code=204)

    async def _listen(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield b'data: {"id":"evt_0","type":"server.connected","properties":{}}\n\n'
            while (frame := await queue.get()) is not None:
                yield frame
        finally:
            self._listeners.discard(queue)


async def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until something holds; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)
