"""Answers one POST: the headers, the message, the method, and the status that goes with it."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from iapeer.core.settings import Settings
from iapeer.core.text import one_line
from iapeer.daemon.mcp import protocol
from iapeer.daemon.mcp.protocol import (
    META_CAPABILITIES,
    META_SERVER,
    META_VERSION,
    METHODS,
    CallParams,
    Code,
    Failure,
    Fault,
    Generation,
    Implementation,
    InitializeParams,
    ListParams,
    Notification,
    Params,
    ProtocolError,
    Reply,
    Request,
    RequestMeta,
    Result,
)
from iapeer.daemon.mcp.tool import TOOL, SendTool
from iapeer.daemon.services import Services

JSON = "application/json"
VERSION_HEADER = "mcp-protocol-version"
METHOD_HEADER = "mcp-method"
NAME_HEADER = "mcp-name"

_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose requests repeat one of their parameters in `Mcp-Name`, and which."""
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")
_CAPABILITIES = {"tools": {"listChanged": False}}
_FRESHNESS = {"ttlMs": 0, "cacheScope": "private"}
"""Required of lists since 2026-07-28: ask again whenever you need it."""


class McpEndpoint:
    """`/mcp`, as an ASGI application behind the gate, which has checked caller, size and time.

    It keeps nothing between requests: no session id is given out, and none that is shown counts.
    """

    def __init__(self, settings: Settings, services: Services) -> None:
        self._tool = SendTool(settings, services)
        self._server = msgspec.to_builtins(Implementation("iapeer", services.version))
        found = {"supportedVersions": protocol.versions_of(Generation.PER_REQUEST)}
        listed = {"tools": [TOOL]}
        self._fixed = {
            (Generation.HANDSHAKE, "ping"): _raw({}),
            (Generation.HANDSHAKE, "tools/list"): _raw(listed),
            (Generation.PER_REQUEST, "tools/list"): _raw(self._complete(listed | _FRESHNESS)),
            (Generation.PER_REQUEST, "server/discover"): _raw(
                self._complete(found | {"capabilities": _CAPABILITIES} | _FRESHNESS)
            ),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST with JSON, or with 202 and nothing."""
        request = HttpRequest(scope, receive)
        status, body = await self._answer(request, scope["state"]["body"])
        headers = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        if body:
            headers.append((b"content-type", JSON.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, request: HttpRequest, body: bytes) -> tuple[int, bytes]:
        headers = request.headers
        generation = protocol.generation_of(headers.get(VERSION_HEADER))
        request_id: int | str | None = None
        try:
            _check_media(headers)
            message = protocol.read_message(body)
            if not isinstance(message, Request):
                _check_unanswered(message, generation, headers)
                return 202, b""
            request_id = message.id
            result = await self._result(message, generation, request)
        except ProtocolError as error:
            # With a handshake, a request that could be read has status 200, whatever its answer.
            handled = request_id is not None and generation is Generation.HANDSHAKE
            fault = Fault(error.rpc, error.message, error.data)
            return 200 if handled else error.status, protocol.encode(Failure(request_id, fault))
        return 200, protocol.encode(Result(request_id, result))

    async def _result(
        self, message: Request, generation: Generation, request: HttpRequest
    ) -> dict[str, Any] | msgspec.Raw:
        if generation is Generation.PER_REQUEST:
            _check_self_description(message, request.headers)
        method, params = message.method, message.params
        if method not in METHODS[generation]:
            raise ProtocolError(Code.METHOD_NOT_FOUND, "Method not found", status=404, data=method)
        if generation is Generation.PER_REQUEST:
            protocol.read_params(RequestMeta, (params or {})["_meta"])
        if method == "tools/call":
            answer = await self._tool.call(request, protocol.read_params(CallParams, params))
            return answer if generation is Generation.HANDSHAKE else self._complete(answer)
        if method == "initialize":
            return self._initialize(protocol.read_params(InitializeParams, params))
        protocol.read_params(ListParams if method == "tools/list" else Params, params)
        return self._fixed[generation, method]

    def _initialize(self, params: InitializeParams) -> dict[str, Any]:
        return {
            "protocolVersion": protocol.negotiate(params.protocol_version),
            "capabilities": _CAPABILITIES,
            "serverInfo": self._server,
        }

    def _complete(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a result with what every one has since 2026-07-28."""
        return result | {"resultType": "complete", "_meta": {META_SERVER: self._server}}


def _raw(result: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(result))


def _check_media(headers: Headers) -> None:
    """Raise ProtocolError unless JSON comes and JSON may go."""
    sent = headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != JSON:
        raise ProtocolError(
            Code.INVALID_REQUEST, f"Unsupported Media Type: Content-Type must be {JSON}", status=415
        )
    ranges = headers.get("accept", "").lower().split(",")
    taken = {each.partition(";")[0].strip() for each in ranges}
    if taken.isdisjoint({JSON, "application/*", "*/*"}):
        raise ProtocolError(
            Code.INVALID_REQUEST, f"Not Acceptable: the client must accept {JSON}", status=406
        )


def _check_unanswered(
    message: Notification | Reply, generation: Generation, headers: Headers
) -> None:
    """Raise ProtocolError for a message without an answer that its version doesn't have.

    A notification changes nothing here: there is no session to be ready, and a call is not to be
    cancelled by whoever guesses its id.
    """
    if generation is Generation.HANDSHAKE:
        return
    if isinstance(message, Reply):
        raise ProtocolError(Code.INVALID_REQUEST, "nobody asked the client for an answer")
    _check_version(headers.get(VERSION_HEADER, ""))


def _check_self_description(message: Request, headers: Headers) -> None:
    """Check what a request says about itself twice, in its headers and in its body.

    Raises ProtocolError: missing, contradictory, or of a version that we don't speak.
    """
    for name in (VERSION_HEADER, METHOD_HEADER, NAME_HEADER):
        if len(headers.getlist(name)) > 1:
            raise _mismatch(f"{name} header appears more than once")
    params = message.params or {}
    meta = params.get("_meta")
    missing = [
        key
        for key in (META_VERSION, META_CAPABILITIES)
        if not isinstance(meta, dict) or key not in meta
    ]
    if not isinstance(meta, dict) or missing:
        raise ProtocolError(Code.INVALID_PARAMS, f"params._meta must hold {' and '.join(missing)}")
    if headers[VERSION_HEADER] != meta[META_VERSION]:
        raise _mismatch(f"{VERSION_HEADER} header and params._meta name different versions")
    if headers.get(METHOD_HEADER) != message.method:
        raise _mismatch(f"{METHOD_HEADER} header is not the method of the body")
    key = _NAMED_BY.get(message.method, "")
    named = params.get(key)
    if named is not None and _header_text(headers.get(NAME_HEADER, "")) != named:
        raise _mismatch(f"{NAME_HEADER} header is not params.{key} of the body")
    _check_version(headers[VERSION_HEADER])


def _check_version(version: str) -> None:
    spoken = protocol.versions_of(Generation.PER_REQUEST)
    if version not in spoken:
        raise ProtocolError(
            Code.UNSUPPORTED_VERSION,
            f"unsupported protocol version {one_line(version, 40)!r}",
            data={"supported": spoken, "requested": version},
        )


def _mismatch(words: str) -> ProtocolError:
    return ProtocolError(Code.HEADER_MISMATCH, words)


def _header_text(value: str) -> str | None:
    """Return what a header says; None for one that claims an encoding and does not keep it."""
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        data = base64.b64decode(found[1], validate=True)
        text = data.decode()
    except ValueError:
        return None
    # The reader takes spare bits in the last character; a second spelling of a name is none.
    return text if base64.b64encode(data).decode() == found[1] else None
