"""The MCP surface: the official server, stateless, JSON answers, exactly one tool.

Importing this module imports the SDK (1 s, 35 MiB: measured), so the daemon does it in a thread
after its sockets are bound. Who is calling is decided by `auth`; the SDK's own Host and Origin
checks are off because the gate in front of every path has made them.
"""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from iapeer.core.draft import ATTACHMENTS_MAX, MESSAGE_MAX, TOPIC_MAX, Draft
from iapeer.core.errors import IapeerError, InvalidInput
from iapeer.core.names import NAME_PATTERN, RUNTIME_PATTERN
from iapeer.core.outcomes import SendResult
from iapeer.core.settings import Settings
from iapeer.core.text import one_line
from iapeer.daemon.answers import internal_error, log_call, log_crash
from iapeer.daemon.auth import Proof, claim_of, prove
from iapeer.daemon.services import Services

TOOL_NAME = "send_to_peer"
KEY_META = "iapeer/key"
"""The idempotency key travels in `_meta`, where no model sees it."""

_DESCRIPTION = """\
Send a message to another peer on this host. A peer may be an AI agent, a human or a service.

`personality` is the peer's plain name, without a runtime prefix (use "alice", not "claude-alice").
`runtime` is only the surface a peer is reached on, not what kind of peer it is; leave it out to \
use the peer's default. A sleeping peer is woken on demand, and naming a runtime other than the \
default one wakes a parallel session of that peer there.

The peer receives your message in an `<iap ...>` block that names you as the sender; messages for \
you arrive in the same form, and you answer one by sending to the personality it names. `topic` \
is optional and groups messages that belong together."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "personality": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The recipient's name, without a runtime prefix.",
        },
        "message": {
            "type": "string",
            "minLength": 1,
            "maxLength": MESSAGE_MAX,
            "description": "The text to deliver.",
        },
        "runtime": {
            "type": "string",
            "pattern": RUNTIME_PATTERN,
            "description": "Optional. Leave it out to reach the peer's default runtime, which is "
            "woken on demand. Another runtime of the peer is a parallel session of its own, "
            "woken if it sleeps.",
        },
        "topic": {
            "type": "string",
            "maxLength": TOPIC_MAX,
            "description": "Optional subject of the conversation.",
        },
        "attachments": {
            "type": "array",
            "items": {"type": "string"},
            "maxItems": ATTACHMENTS_MAX,
            "description": "Optional absolute paths of local files; only the paths are passed on.",
        },
    },
    "required": ["personality", "message"],
    "additionalProperties": False,
}
"""The tool's input. The router checks the limits again and names them in the contract's words."""

TOOL = types.Tool(
    name=TOOL_NAME,
    description=_DESCRIPTION,
    input_schema=SCHEMA,
    annotations=types.ToolAnnotations(
        title="Send to IAP peer",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
        open_world_hint=True,
    ),
    _meta={"anthropic/alwaysLoad": True},
)

_Context = ServerRequestContext[Any, Request]


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """The tool's arguments by type only; empty strings stand for missing ones."""

    personality: str = ""
    message: str = ""
    runtime: str | None = None
    topic: str | None = None
    attachments: tuple[Any, ...] = ()


def make_manager(settings: Settings, services: Services) -> StreamableHTTPSessionManager:
    """Return the session manager that answers `/mcp`; it can be run once.

    Listing and the handshake need no identity, `tools/call` does. Prompts and resources have no
    handler, so both are answered by "method not found".
    """
    surface = _Surface(settings, services)
    server: Server[Any] = Server(
        "iapeer",
        version=services.version,
        get_tool_input_schema={TOOL_NAME: SCHEMA}.get,
        on_list_tools=surface.list_tools,
        on_call_tool=surface.call_tool,
    )
    return StreamableHTTPSessionManager(
        app=server,
        json_response=True,
        stateless=True,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=settings.max_body_bytes,
    )


class _Surface:
    """The tool's two handlers."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._services = services

    async def list_tools(
        self, _context: _Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[TOOL])

    async def call_tool(
        self, context: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Send; a domain error is a tool result with `isError`, never an HTTP or RPC error."""
        request = context.request
        if request is None:
            raise RuntimeError("a tool call that came by no HTTP request")
        proof: Proof | None = None
        code: str | None = None
        try:
            _check_tool(params.name)
            proof = await self._prove(request)
            result = await self._send(proof, params)
            answer = _success(result)
        except IapeerError as error:
            code = error.code
            answer = _failure(error)
        except Exception as error:  # noqa: BLE001 - the root of this call
            log_crash("tools/call", error)
            code = "internal"
            answer = _failure(internal_error())
        self._log(request, proof, code)
        return answer

    async def _prove(self, request: Request) -> Proof:
        claim = claim_of(request, static_bearer=self._settings.bearer_token)
        return await prove(claim, self._services.tokens)

    async def _send(self, proof: Proof, params: types.CallToolRequestParams) -> SendResult:
        given = _arguments(params.arguments or {})
        draft = Draft(
            to=given.personality,
            message=given.message,
            runtime=given.runtime,
            topic=given.topic,
            attachments=given.attachments,
        )
        key = _key(params.meta)
        return await self._services.postman.send(proof.caller, draft, path="mcp", key=key)

    def _log(self, request: Request, proof: Proof | None, code: str | None) -> None:
        state = request.scope["state"]
        peer = state["peer"]
        log_call(
            loud=self._settings.daemon_log or (proof is not None and proof.proof == "uid"),
            verb="tools/call",
            listener=state["listener"],
            sender=proof.caller.address if proof else None,
            proof=proof.proof if proof else None,
            pid=peer.pid if peer else None,
            ok=code is None,
            code=code,
        )


def _check_tool(name: str) -> None:
    if name != TOOL_NAME:
        raise InvalidInput(f"unknown tool: {one_line(name, 80)}")


def _arguments(raw: dict[str, Any]) -> _Arguments:
    try:
        # The SDK's JSON reader lets lone surrogates through, which no file and no pane can hold.
        json.dumps(raw, ensure_ascii=False).encode()
        return msgspec.convert(raw, _Arguments)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"bad arguments: {one_line(str(error), 200)}") from None
    except UnicodeEncodeError:
        raise InvalidInput(
            "the arguments hold a lone surrogate, which is no Unicode text"
        ) from None


def _key(meta: Any) -> str | None:
    key = (meta or {}).get(KEY_META)
    if key is not None and not isinstance(key, str):
        raise InvalidInput(f"_meta {KEY_META} must be a string")
    return key


def _success(result: SendResult) -> types.CallToolResult:
    body = result.to_json()
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=body
    )


def _failure(error: IapeerError) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=str(error))], is_error=True
    )
