"""The one tool: its description, its arguments, and the call.

A refusal of ours is a result that says so, never an HTTP or JSON-RPC error: only then does the
model see it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from iapeer.core.draft import ATTACHMENTS_MAX, MESSAGE_MAX, TOPIC_MAX, Draft
from iapeer.core.errors import IapeerError, InvalidInput
from iapeer.core.names import NAME_PATTERN, RUNTIME_PATTERN
from iapeer.core.outcomes import SendResult
from iapeer.core.settings import Settings
from iapeer.core.text import one_line
from iapeer.daemon.answers import internal_error, log_call, log_crash
from iapeer.daemon.auth import Proof, claim_of, prove
from iapeer.daemon.mcp.protocol import CallParams
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

TOOL: dict[str, Any] = {
    "name": TOOL_NAME,
    "description": _DESCRIPTION,
    "inputSchema": SCHEMA,
    "annotations": {
        "title": "Send to IAP peer",
        "readOnlyHint": False,
        "destructiveHint": False,
        "idempotentHint": False,
        "openWorldHint": True,
    },
    "_meta": {"anthropic/alwaysLoad": True},
}
"""The tool as `tools/list` shows it."""


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """The tool's arguments by type only; empty strings stand for missing ones."""

    personality: str = ""
    message: str = ""
    runtime: str | None = None
    topic: str | None = None
    attachments: tuple[Any, ...] = ()


class SendTool:
    """Sends for whoever proves who they are."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._services = services

    async def call(self, request: HTTPConnection, params: CallParams) -> dict[str, Any]:
        """Return the `CallToolResult` of one call; never raises."""
        proof: Proof | None = None
        code: str | None = None
        try:
            _check_tool(params.name)
            proof = await self._prove(request)
            answer = _success(await self._send(proof, params))
        except IapeerError as error:
            code = error.code
            answer = _failure(error)
        except Exception as error:  # noqa: BLE001 - the root of this call
            log_crash("tools/call", error)
            code = "internal"
            answer = _failure(internal_error())
        self._log(request, proof, code)
        return answer

    async def _prove(self, request: HTTPConnection) -> Proof:
        claim = claim_of(request, static_bearer=self._settings.bearer_token)
        return await prove(claim, self._services.tokens)

    async def _send(self, proof: Proof, params: CallParams) -> SendResult:
        given = _arguments(params.arguments or {})
        draft = Draft(
            to=given.personality,
            message=given.message,
            runtime=given.runtime,
            topic=given.topic,
            attachments=given.attachments,
        )
        key = _key(params.meta or {})
        return await self._services.postman.send(proof.caller, draft, path="mcp", key=key)

    def _log(self, request: HTTPConnection, proof: Proof | None, code: str | None) -> None:
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
        # A lone surrogate gets this far, see `protocol`; no file and no pane can hold one.
        msgspec.json.encode(raw)
        return msgspec.convert(raw, _Arguments)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"bad arguments: {one_line(str(error), 200)}") from None
    except UnicodeEncodeError:
        raise InvalidInput(
            "the arguments hold a lone surrogate, which is no Unicode text"
        ) from None


def _key(meta: dict[str, Any]) -> str | None:
    key = meta.get(KEY_META)
    if key is None or (isinstance(key, str) and _is_text(key)):
        return key
    raise InvalidInput(f"_meta {KEY_META} must be a string")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _success(result: SendResult) -> dict[str, Any]:
    body = result.to_json()
    text = msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    return {**_text(text), "isError": False, "structuredContent": body}


def _failure(error: IapeerError) -> dict[str, Any]:
    return {**_text(str(error)), "isError": True}


def _text(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}
