"""A real MCP server with one `send_to_peer` tool on loopback, made with the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server

Answer = Callable[[dict[str, Any]], Awaitable[types.CallToolResult]]


async def delivered(arguments: dict[str, Any]) -> types.CallToolResult:
    """Answer as the daemon does when the message landed."""
    result = {"ok": True, "state": "landed", "message_id": "abcdefghijkl"}
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=str(result))], structured_content=result
    )


class McpDaemon:
    """Serves in a thread; `calls` holds (arguments, headers, meta) of every tool call."""

    def __init__(self, answer: Answer = delivered, *, port: int = 0) -> None:
        self.calls: list[tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = []
        self.connections: set[int] = set()
        """The client's ports of the calls: one for each connection."""
        self._answer = answer
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        server: Server[dict[str, Any]] = Server(
            "iapeer", on_list_tools=self._list, on_call_tool=self._call
        )
        app = server.streamable_http_app(json_response=True, stateless_http=True)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._server.serve(sockets=[self._socket]))

    async def _list(self, _context: Any, _params: Any) -> types.ListToolsResult:
        tool = types.Tool(name="send_to_peer", input_schema={"type": "object"})
        return types.ListToolsResult(tools=[tool])

    async def _call(
        self, context: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        arguments = dict(params.arguments or {})
        self.connections.add(context.request.client.port)
        self.calls.append((arguments, dict(context.request.headers), dict(context.meta or {})))
        return await self._answer(arguments)
