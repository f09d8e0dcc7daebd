"""What goes over the wire: the versions we speak, JSON-RPC's envelopes and its errors, as data.

Parameters are checked as far as the server uses them: a client may always say more.
"""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType, field

from iapeer.core.errors import IapeerError
from iapeer.core.text import one_line

JSONRPC = "2.0"

_Params = TypeVar("_Params")


class Generation(StrEnum):
    """How a version of the protocol opens a conversation."""

    HANDSHAKE = "handshake"
    """By `initialize`; later requests name the version in a header, or not at all."""
    PER_REQUEST = "per-request"
    """Not at all: each request carries version and capabilities, and headers repeat them."""


VERSIONS: dict[str, Generation] = {
    "2024-11-05": Generation.HANDSHAKE,
    "2025-03-26": Generation.HANDSHAKE,
    "2025-06-18": Generation.HANDSHAKE,
    "2025-11-25": Generation.HANDSHAKE,
    "2026-07-28": Generation.PER_REQUEST,
}
"""Every version we speak, oldest first: the only place that knows them."""

METHODS: dict[Generation, frozenset[str]] = {
    Generation.HANDSHAKE: frozenset({"initialize", "ping", "tools/list", "tools/call"}),
    Generation.PER_REQUEST: frozenset({"server/discover", "tools/list", "tools/call"}),
}
"""What is answered by anything but "method not found"."""

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_SERVER = "io.modelcontextprotocol/serverInfo"


class Code(IntEnum):
    """Error codes: JSON-RPC 2.0 section 5.1, and MCP 2026-07-28."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    HEADER_MISMATCH = -32020
    UNSUPPORTED_VERSION = -32022


class ProtocolError(IapeerError):
    """A message that gets a JSON-RPC error instead of a result.

    `rpc` and `data` go into the error; `status` is the HTTP status it has where the error decides.
    """

    code = "protocol"

    def __init__(
        self,
        rpc: Code,
        message: str,
        *,
        status: int = 400,
        data: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.rpc = rpc
        self.status = status
        self.data = data


class Request(msgspec.Struct, frozen=True):
    """A message that is owed an answer. Its id is a string or an integer, never null."""

    jsonrpc: Literal["2.0"]
    id: int | str
    method: str
    params: dict[str, Any] | None = None


class Notification(msgspec.Struct, frozen=True):
    """A message without an id: nobody waits for an answer."""

    jsonrpc: Literal["2.0"]
    method: str
    params: dict[str, Any] | None = None


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `error` of an answer."""

    code: int
    message: str
    data: Any = None


class Reply(msgspec.Struct, frozen=True):
    """A client's answer to a request. We make none; only the handshake's versions allow it."""

    jsonrpc: Literal["2.0"]
    id: int | str | None
    result: dict[str, Any] | UnsetType = UNSET
    error: Fault | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Raise ValueError for what answers nothing."""
        if self.error is UNSET and (self.result is UNSET or self.id is None):
            raise ValueError("neither the result of a request nor an error")


class Result(msgspec.Struct, frozen=True, tag_field="jsonrpc", tag=JSONRPC):
    """Our answer to a request; `result` is encoded once more only if it isn't yet."""

    id: int | str
    result: dict[str, Any] | msgspec.Raw


class Failure(msgspec.Struct, frozen=True, tag_field="jsonrpc", tag=JSONRPC):
    """Our answer without a result; the id is None where none could be read."""

    id: int | str | None
    error: Fault


class Implementation(msgspec.Struct, frozen=True):
    """A program's name and version, the client's or ours."""

    name: str
    version: str


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """Of what takes nothing; the same in all others."""

    meta: dict[str, Any] | None = field(name="_meta", default=None)


class InitializeParams(Params, frozen=True, kw_only=True, rename="camel"):
    """Of `initialize`."""

    protocol_version: str
    capabilities: dict[str, Any]
    client_info: Implementation


class ListParams(Params, frozen=True, kw_only=True):
    """Of `tools/list`; all we have fits one page, so any cursor gets it."""

    cursor: str | None = None


class CallParams(Params, frozen=True, kw_only=True):
    """Of `tools/call`."""

    name: str
    arguments: dict[str, Any] | None = None


class RequestMeta(msgspec.Struct, frozen=True):
    """What `_meta` of each request carries where there is no handshake."""

    version: str = field(name=META_VERSION)
    capabilities: dict[str, Any] = field(name=META_CAPABILITIES)
    client: Implementation | None = field(name=META_CLIENT, default=None)


def generation_of(version: str | None) -> Generation:
    """Return by which rules a request with this version header is read.

    No header is an old client's. A version we don't know is read by the newest rules, which
    refuse it.
    """
    if version is None:
        return Generation.HANDSHAKE
    return VERSIONS.get(version, Generation.PER_REQUEST)


def versions_of(generation: Generation) -> list[str]:
    """Return the versions of a generation, oldest first."""
    return [version for version, its in VERSIONS.items() if its is generation]


def negotiate(asked: str) -> str:
    """Return the version a handshake agrees on: the one asked for, else the newest we could."""
    spoken = versions_of(Generation.HANDSHAKE)
    return asked if asked in spoken else spoken[-1]


def read_message(body: bytes) -> Request | Notification | Reply:
    """Return the one message of a body.

    Raises ProtocolError: the body is no JSON, or no message. A batch is none: the one version that
    had batches let servers do without.
    """
    decoded = _decode(body)
    kind: type[Request | Notification | Reply] = Reply
    if isinstance(decoded, dict) and "method" in decoded:
        # By the key, not by its value: a request with a malformed id is owed an error.
        kind = Request if "id" in decoded else Notification
    try:
        return msgspec.convert(decoded, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            Code.INVALID_REQUEST,
            f"the body must be one JSON-RPC request or notification: {one_line(str(error), 200)}",
        ) from None


def read_params(kind: type[_Params], params: dict[str, Any] | None) -> _Params:
    """Return parameters as `kind`; none are `{}`. Raises ProtocolError."""
    try:
        return msgspec.convert(params or {}, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            Code.INVALID_PARAMS, f"Invalid request parameters: {one_line(str(error), 200)}"
        ) from None


def encode(answer: Result | Failure) -> bytes:
    """Return an answer's bytes; a string that is no Unicode text goes back escaped, as it came."""
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError:
        whole = {"jsonrpc": JSONRPC, **msgspec.structs.asdict(answer)}
        return json.dumps(whole, default=_plain).encode()


def _plain(value: msgspec.Raw | Fault) -> Any:
    return (
        msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else msgspec.to_builtins(value)
    )


def _decode(body: bytes) -> Any:
    """Return what a body holds; raises ProtocolError.

    A lone surrogate or NaN is no JSON. Python's reader takes them, so that the tool can tell the
    model: its program would only see a failed request.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError(Code.PARSE_ERROR, "Parse error: the body is no JSON") from None
