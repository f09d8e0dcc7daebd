"""The limit of MCP calls: the SDK's bare tool, stateless, JSON: `echo_server PORT PARSER`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

import uvicorn
from mcp import types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Mount

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"message": {"type": "string"}},
    "required": ["message"],
}


async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
    """Return the one tool."""
    return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema=SCHEMA)])


async def call_tool(
    _context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
) -> types.CallToolResult:
    """Return what was said."""
    text = str((params.arguments or {})["message"])
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def serve(port: int, parser: Literal["h11", "httptools"]) -> None:
    """Serve until a signal; with the settings of our daemon's server."""
    server: Server[Any] = Server(
        "echo",
        get_tool_input_schema={"echo": SCHEMA}.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    manager = StreamableHTTPSessionManager(app=server, json_response=True, stateless=True)
    app = Starlette(routes=[Mount("/", app=manager.handle_request)])
    config = uvicorn.Config(
        app,
        port=port,
        loop="none",
        http=parser,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    async with manager.run():
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), "httptools" if "httptools" in sys.argv else "h11"))
