"""The oracle: the official SDK's own endpoint around our one tool, and both asked the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as types
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from iapeer.core.settings import Settings
from iapeer.daemon.auth import Listener, headers_of
from iapeer.daemon.mcp.endpoint import McpEndpoint
from iapeer.daemon.mcp.protocol import CallParams
from iapeer.daemon.mcp.tool import SCHEMA, TOOL, TOOL_NAME, SendTool
from iapeer.daemon.services import Services


def sdk_manager(settings: Settings, services: Services) -> StreamableHTTPSessionManager:
    """Stateless with JSON answers; what the tool itself says is ours on both sides."""
    tool = SendTool(settings, services)

    async def list_tools(
        _context: Any, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool.model_validate(TOOL)])

    async def call_tool(
        context: ServerRequestContext[Any, Request], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        assert context.request is not None
        meta: Any = params.meta
        call = CallParams(name=params.name, arguments=params.arguments, meta=meta)
        return types.CallToolResult.model_validate(await tool.call(context.request, call))

    server: Server[Any] = Server(
        "iapeer",
        version=services.version,
        get_tool_input_schema={TOOL_NAME: SCHEMA}.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    return StreamableHTTPSessionManager(
        app=server,
        json_response=True,
        stateless=True,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is None for an empty one."""

    status: int
    media: str
    body: Any

    @property
    def short(self) -> str:
        """The status and what decides: `200 result`, `200 tool error`, `400 -32700`, `202`."""
        if self.body is None:
            return str(self.status)
        if "error" in self.body:
            return f"{self.status} {self.body['error']['code']}"
        refused = self.body["result"].get("isError")
        return f"{self.status} {'tool error' if refused else 'result'}"


class Pair:
    """Our endpoint and the SDK's, both with the same services."""

    def __init__(
        self, portal: BlockingPortal, ours: McpEndpoint, sdk: StreamableHTTPSessionManager
    ) -> None:
        self._portal = portal
        self._ours = ours
        self._sdk = sdk

    def ask(self, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes) -> Answer:
        """Ask ours."""
        return self._portal.call(_ask, self._ours, headers, body)

    def ask_sdk(self, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes) -> Answer:
        """Ask the SDK's."""
        return self._portal.call(_ask, self._sdk.handle_request, headers, body)


@contextmanager
def pair(settings: Settings, services: Services) -> Iterator[Pair]:
    sdk = sdk_manager(settings, services)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sdk.run()):
        yield Pair(portal, McpEndpoint(settings, services), sdk)


async def _ask(
    app: ASGIApp, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes
) -> Answer:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/mcp",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "state": {"listener": Listener.TCP, "peer": None, "body": body},
    }
    scope["state"]["headers"] = headers_of(scope)
    sent: list[Message] = []

    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not incoming:
            await anyio.sleep_forever()
        return incoming.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    with anyio.fail_after(10):
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not sent[1].get("more_body", False)
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    data = sent[1].get("body", b"")
    assert named.get("content-length", str(len(data))) == str(len(data))
    media = named.get("content-type", "")
    text = data.decode() if data else ""
    if media == "application/json" and text:
        return Answer(sent[0]["status"], media, json.loads(text))
    return Answer(sent[0]["status"], media, {"error": {"code": text}} if text else None)
