"""Our endpoint and the official SDK's give the same answers, but for differences with a reason."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iapeer.daemon.services import Services
from tests.integration.daemon.sdk_endpoint import Answer, Pair, pair
from tests.integration.daemon.support import (
    ALICE_TOKEN,
    FakeArchive,
    FakeEvidence,
    FakeFleet,
    FakeInbox,
    FakeOwn,
    FakePostman,
    FakeTokens,
    cleanup,
    make_root,
    settings_for,
)

HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "X-IAPeer-Token": ALICE_TOKEN,
}
NEWEST = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
ARGUMENTS = {"personality": "bob", "message": "hello", "topic": "t"}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"roots": {"listChanged": True}},
    "clientInfo": {"name": "test", "version": "1"},
}

Ask = tuple[dict[str, str] | list[tuple[str, str]], Any]


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    services = Services(
        postman=FakePostman(),
        archive=FakeArchive(),
        fleet=FakeFleet(),
        own=FakeOwn(),
        evidence=FakeEvidence(),
        inbox=FakeInbox(),
        tokens=FakeTokens(),
        version="9.8.7",
    )
    root = make_root()
    with pair(settings_for(root), services) as found:
        yield found
    cleanup(root)


def old(method: str, params: Any = None, *, version: str = "", **more: Any) -> Ask:
    """A request of a version with a handshake; `more` are members of the body."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, **more}
    if params is not None:
        body["params"] = params
    return HEADERS | ({"MCP-Protocol-Version": version} if version else {}), body


def new(method: str, params: Any = None, *, meta: Any = META, name: str = "", **more: Any) -> Ask:
    """A request of the newest version, with the headers that belong to it."""
    headers = HEADERS | {"MCP-Protocol-Version": NEWEST, "Mcp-Method": method}
    if name:
        headers["Mcp-Name"] = name
    return headers, {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {**(params or {}), "_meta": meta},
        **more,
    }


def call(arguments: Any = ARGUMENTS, **params: Any) -> dict[str, Any]:
    return {"name": "send_to_peer", "arguments": arguments, **params}


def without(ask: Ask, *names: str) -> Ask:
    headers, body = ask
    assert isinstance(headers, dict)
    return {name: value for name, value in headers.items() if name not in names}, body


def with_headers(ask: Ask, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert isinstance(ask[0], dict)
    return {**ask[0], **named}, ask[1]


def twice(ask: Ask, name: str) -> Ask:
    assert isinstance(ask[0], dict)
    return [*ask[0].items(), (name, ask[0][name])], ask[1]


def raw(body: bytes, version: str = "") -> Ask:
    return HEADERS | ({"MCP-Protocol-Version": version} if version else {}), body


def encoded(name: str) -> str:
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


def note(method: str, params: Any = None, *, version: str = "") -> Ask:
    body = {"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params})
    return HEADERS | ({"MCP-Protocol-Version": version} if version else {}), body


REPLY = {"jsonrpc": "2.0", "id": 1, "result": {}}
ERROR_REPLY = {"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "no"}}

SAME: dict[str, Ask] = {
    "initialize": old("initialize", HELLO),
    "initialize, every version": old("initialize", HELLO | {"protocolVersion": "2024-11-05"}),
    "initialize, the newest asks for a handshake": old(
        "initialize", HELLO | {"protocolVersion": NEWEST}
    ),
    "initialize, unknown version": old("initialize", HELLO | {"protocolVersion": "1999-01-01"}),
    "initialize, version in the header too": old("initialize", HELLO, version="2025-11-25"),
    "initialize, nothing said": old("initialize"),
    "initialize, no client": old("initialize", {"protocolVersion": "2025-06-18"}),
    "initialize, client without version": old(
        "initialize", HELLO | {"clientInfo": {"name": "test"}}
    ),
    "initialize, unknown members": old("initialize", HELLO | {"more": 1}, extra=[1]),
    "initialize without handshake": new("initialize", HELLO),
    "ping": old("ping"),
    "ping, params": old("ping", {"_meta": {"progressToken": "p"}}),
    "ping, null params": old("ping", more=None),
    "ping, id of text": old("ping", id="one"),
    "ping, empty id": old("ping", id=""),
    "ping, huge id": old("ping", id=2**80),
    "ping, negative id": old("ping", id=-1),
    "ping without handshake": new("ping"),
    "discover": new("server/discover"),
    "discover, a cursor it doesn't take": new("server/discover", {"cursor": []}),
    "ping, a cursor it doesn't take": old("ping", {"cursor": []}),
    "discover with a handshake": old("server/discover"),
    "list": old("tools/list"),
    "list, empty params": old("tools/list", {}),
    "list, cursor": old("tools/list", {"cursor": "page 2"}),
    "list, cursor of a wrong type": old("tools/list", {"cursor": 2}),
    "list, _meta of a wrong type": old("tools/list", {"_meta": 2}),
    "list, 2024-11-05": old("tools/list", version="2024-11-05"),
    "list, 2025-03-26": old("tools/list", version="2025-03-26"),
    "list, 2025-11-25": old("tools/list", version="2025-11-25"),
    "list, without handshake": new("tools/list"),
    "list, without handshake, cursor": new("tools/list", {"cursor": "page 2"}),
    "call": old("tools/call", call()),
    "call, 2024-11-05": old("tools/call", call(), version="2024-11-05"),
    "call, without handshake": new("tools/call", call(), name="send_to_peer"),
    "call, key": old("tools/call", call(_meta={"iapeer/key": "k"})),
    "call, key of a wrong type": old("tools/call", call(_meta={"iapeer/key": 5})),
    "call, progress token": old("tools/call", call(_meta={"progressToken": 7})),
    "call, no arguments": old("tools/call", {"name": "send_to_peer"}),
    "call, null arguments": old("tools/call", call(None)),
    "call, arguments no object": old("tools/call", call([])),
    "call, extra argument": old("tools/call", call(ARGUMENTS | {"extra": 1})),
    "call, wrong types": old("tools/call", call({"personality": 1, "message": {}})),
    "call, empty": old("tools/call", call({"personality": "", "message": ""})),
    "call, too long": old("tools/call", call(ARGUMENTS | {"message": "x" * 16_001})),
    "call, nobody": old("tools/call", call(ARGUMENTS | {"personality": "nobody"})),
    "call, flooded": old("tools/call", call(ARGUMENTS | {"personality": "flooded"})),
    "call, a defect": old("tools/call", call(ARGUMENTS | {"personality": "crash"})),
    "call, unknown tool": old("tools/call", {"name": "other"}),
    "call, unknown tool without handshake": new("tools/call", {"name": "other"}, name="other"),
    "call, no name": old("tools/call", {}),
    "call, no params": old("tools/call"),
    "call, name of a wrong type": old("tools/call", {"name": 5}),
    "call, no token": without(old("tools/call", call()), "X-IAPeer-Token"),
    "call, wrong token": with_headers(old("tools/call", call()), X_IAPeer_Token="0" * 64),
    "call, other identity": with_headers(old("tools/call", call()), X_IAPeer_Identity="claude-bob"),
    "prompts": old("prompts/list"),
    "prompts without handshake": new("prompts/list"),
    "resources": old("resources/list", {}),
    "resources without handshake": new("resources/list"),
    "templates": old("resources/templates/list"),
    "logging": old("logging/setLevel", {"level": "info"}),
    "nothing": old("nothing/at-all"),
    "nothing, without handshake": new("nothing/at-all"),
    "empty method": old(""),
    "a notification as a request": old("notifications/initialized"),
    "initialized": note("notifications/initialized"),
    "initialized, version": note("notifications/initialized", version="2025-06-18"),
    "initialized without handshake": note("notifications/initialized", version=NEWEST),
    "cancelled": note("notifications/cancelled", {"requestId": 1}),
    "cancelled without handshake": note("notifications/cancelled", version=NEWEST),
    "progress": note("notifications/progress", {"progressToken": 1, "progress": 1}),
    "roots changed": note("notifications/roots/list_changed"),
    "unknown notification": note("notifications/other", {"x": 1}),
    "notification, params no object": note("notifications/other", [1], version=NEWEST),
    "notification of an unknown version": note("notifications/other", version="2031-01-01"),
    "reply": (HEADERS, REPLY),
    "error reply": (HEADERS, ERROR_REPLY),
    "reply without handshake": (HEADERS | {"MCP-Protocol-Version": NEWEST}, REPLY),
    "session id": with_headers(old("ping"), Mcp_Session_Id="long gone"),
    "unknown version": with_headers(
        new("tools/list", meta=META | {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}),
        MCP_Protocol_Version="2031-01-01",
    ),
    "empty version": with_headers(old("ping"), MCP_Protocol_Version=""),
    "unknown version, old words": old("ping", version="2031-01-01"),
    "new words, old header": without(new("tools/list"), "MCP-Protocol-Version"),
    "old words, new header": old("tools/list", version=NEWEST),
    "no _meta": new("tools/list", meta=None),
    "_meta no object": new("tools/list", meta=[]),
    "_meta without capabilities": new(
        "tools/list", meta={"io.modelcontextprotocol/protocolVersion": NEWEST}
    ),
    "_meta without version": new(
        "tools/list", meta={"io.modelcontextprotocol/clientCapabilities": {}}
    ),
    "_meta of another version": new(
        "tools/list", meta=META | {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}
    ),
    "_meta with null version": new(
        "tools/list", meta=META | {"io.modelcontextprotocol/protocolVersion": None}
    ),
    "capabilities no object": new(
        "tools/list", meta=META | {"io.modelcontextprotocol/clientCapabilities": []}
    ),
    "client no object": new("tools/list", meta=META | {"io.modelcontextprotocol/clientInfo": "me"}),
    "no client": new("tools/list", meta=META | {"io.modelcontextprotocol/clientInfo": None}),
    "no method header": without(new("tools/list"), "Mcp-Method"),
    "other method header": with_headers(new("tools/list"), Mcp_Method="tools/call"),
    "method header in capitals": with_headers(new("tools/list"), Mcp_Method="Tools/List"),
    "no name header": new("tools/call", call()),
    "other name header": new("tools/call", call(), name="other"),
    "name header, encoded": new("tools/call", call(), name=encoded("send_to_peer")),
    "name header, encoded other": new("tools/call", call(), name=encoded("other")),
    "name header, bad base64": new("tools/call", call(), name="=?base64?%%?="),
    "name header, second spelling": new("tools/call", {"name": "a"}, name="=?base64?YR==?="),
    "name header, no text": new("tools/call", call(), name="=?base64?/w==?="),
    "name header for null": new("tools/call", {"name": None}),
    "name header for a number": new("tools/call", {"name": 5}, name="5"),
    "uri header": new("resources/read", {"uri": "x:y"}, name="other"),
    "two method headers": twice(new("tools/list"), "Mcp-Method"),
    "two versions": twice(new("tools/list"), "MCP-Protocol-Version"),
    "two names": twice(new("tools/call", call(), name="send_to_peer"), "Mcp-Name"),
    "accepts JSON": with_headers(old("ping"), Accept="application/json"),
    "accepts anything": with_headers(old("ping"), Accept="*/*"),
    "accepts applications": with_headers(old("ping"), Accept="text/html, application/*;q=0.2"),
    "accepts in capitals": with_headers(old("ping"), Accept="Application/JSON"),
    "accepts events only": with_headers(old("ping"), Accept="text/event-stream"),
    "accepts HTML": with_headers(old("ping"), Accept="text/html"),
    "accepts nothing": without(old("ping"), "Accept"),
    "JSON with charset": with_headers(old("ping"), Content_Type="application/json; charset=utf-8"),
    "no JSON": raw(b"{"),
    "nothing at all": raw(b""),
    "no UTF-8": raw(b'"\xff"'),
    "no JSON, newest": raw(b"{", NEWEST),
    "nothing at all, newest": raw(b"", NEWEST),
    "an array, newest": raw(b"[]", NEWEST),
    "a batch, newest": raw(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', NEWEST),
    "a number, newest": raw(b"5", NEWEST),
    "null, newest": raw(b"null", NEWEST),
    "null id, newest": new("tools/list", id=None),
    "float id, newest": new("tools/list", id=1.0),
    "bool id, newest": new("tools/list", id=True),
    "JSON-RPC 1, newest": new("tools/list", jsonrpc="1.0"),
    "method no text, newest": (new("tools/list")[0], new("tools/list")[1] | {"method": 5}),
    "deep nesting": raw(b"[" * 100_000),
    "deep nesting, newest": raw(b"[" * 100_000, NEWEST),
    "duplicate keys": raw(b'{"jsonrpc":"2.0","id":1,"id":2,"method":"nope","method":"ping"}'),
    "huge number": raw(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":1e999}}'),
    "NaN": raw(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}'),
    "NaN in arguments": raw(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"send_to_peer","arguments":{"message":NaN}}}'
    ),
}

BAD_ENVELOPE = "JSON-RPC 2.0: no valid request object is -32600; the SDK's older half says -32602"
OWED = "a request with a malformed id is owed an error; the SDK's older half takes it for a note"
MEDIA = "RFC 9110: 415; the SDK says 400 in plain text"
TELL_THE_MODEL = "only what the tool says reaches the model, and the tool names the character"
UNSERVED = "a method that isn't there isn't there, whatever its parameters"
UNUSED = "what the server has no use for is not checked"
DEEP = "bounded by our reader's own limit, not by the SDK's"

DIFFERENT: dict[str, tuple[Ask, str, str, str]] = {
    "an array": (raw(b"[]"), "400 -32602", "400 -32600", BAD_ENVELOPE),
    "a batch": (
        raw(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', "2025-03-26"),
        "400 -32602",
        "400 -32600",
        BAD_ENVELOPE,
    ),
    "JSON-RPC 1": (old("ping", jsonrpc="1.0"), "400 -32602", "400 -32600", BAD_ENVELOPE),
    "params no object": (old("ping", [1]), "400 -32602", "400 -32600", BAD_ENVELOPE),
    "reply to nothing": (
        (HEADERS, {"jsonrpc": "2.0", "id": None, "result": {}}),
        "400 -32602",
        "400 -32600",
        BAD_ENVELOPE,
    ),
    "null id": (old("ping", id=None), "202", "400 -32600", OWED),
    "float id": (old("ping", id=1.0), "202", "400 -32600", OWED),
    "bool id": (old("ping", id=True), "202", "400 -32600", OWED),
    "object id": (old("ping", id={}), "202", "400 -32600", OWED),
    "form": (
        with_headers(old("ping"), Content_Type="text/plain"),
        "400 Invalid Content-Type header",
        "415 -32600",
        MEDIA,
    ),
    "no content type": (
        without(old("ping"), "Content-Type"),
        "400 Invalid Content-Type header",
        "415 -32600",
        MEDIA,
    ),
    "content type in capitals": (
        with_headers(old("ping"), Content_Type="Application/JSON"),
        "415 -32600",
        "200 result",
        "RFC 9110: media types have no case",
    ),
    "newest, accepts HTML": (
        with_headers(new("tools/list"), Accept="text/html"),
        "406",
        "406 -32600",
        "one answer for both generations, and it says why",
    ),
    "lone surrogate": (
        raw(json.dumps(old("tools/call", call({"message": "\ud800"}))[1]).encode()),
        "400 -32700",
        "200 tool error",
        TELL_THE_MODEL,
    ),
    "prompt without name": (old("prompts/get", {}), "200 -32602", "200 -32601", UNSERVED),
    "listen without filter": (new("subscriptions/listen"), "400 -32602", "404 -32601", UNSERVED),
    "progress token of a wrong type": (
        old("tools/list", {"_meta": {"progressToken": []}}),
        "200 -32602",
        "200 result",
        UNUSED,
    ),
    "capability of a wrong type": (
        old("initialize", HELLO | {"capabilities": {"roots": 5}}),
        "200 -32602",
        "200 result",
        UNUSED,
    ),
    "task of a wrong type": (
        old("tools/call", call(task=5)),
        "200 -32602",
        "200 result",
        UNUSED,
    ),
    "log level of a wrong type": (
        new("tools/list", meta=META | {"io.modelcontextprotocol/logLevel": 5}),
        "400 -32602",
        "200 result",
        UNUSED,
    ),
    "nested 300 deep": (
        raw(
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":'
            + b"[" * 300
            + b"]" * 300
            + b"}}"
        ),
        "400 -32700",
        "200 result",
        DEEP,
    ),
}
"""What is asked, the SDK's answer, ours, and why."""


def body_of(ask: Ask) -> bytes:
    return ask[1] if isinstance(ask[1], bytes) else json.dumps(ask[1]).encode()


def plain(answer: Answer) -> Answer:
    """An answer without what is free: the words of an error, and the type of an empty body."""
    body = copy.deepcopy(answer.body)
    if body is None:
        return Answer(answer.status, "", None)
    if "error" in body:
        body["error"].pop("message", None)
        if body["error"].get("data") == "":
            del body["error"]["data"]
    return Answer(answer.status, answer.media, body)


@pytest.mark.requirement("mcp:handshake", "mcp:version", "mcp:anonymous")
@pytest.mark.parametrize("name", SAME)
def test_both_endpoints_give_the_same_answer(both: Pair, name: str) -> None:
    headers, body = SAME[name][0], body_of(SAME[name])
    ours, sdk = both.ask(headers, body), both.ask_sdk(headers, body)
    assert plain(ours) == plain(sdk)
    if ours.body is not None:
        assert ours.media == "application/json"


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_they_differ_the_difference_is_the_one_we_chose(both: Pair, name: str) -> None:
    ask, theirs, ours, _why = DIFFERENT[name]
    assert both.ask_sdk(ask[0], body_of(ask)).short == theirs
    assert both.ask(ask[0], body_of(ask)).short == ours


def test_the_table_knows_every_version_of_the_sdk_and_no_other() -> None:
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

    from iapeer.daemon.mcp.protocol import Generation, versions_of

    assert tuple(versions_of(Generation.HANDSHAKE)) == HANDSHAKE_PROTOCOL_VERSIONS
    assert tuple(versions_of(Generation.PER_REQUEST)) == MODERN_PROTOCOL_VERSIONS


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
BASES = [
    name for name in SAME if isinstance(SAME[name][1], dict) and isinstance(SAME[name][0], dict)
]
PATHS = [
    ("jsonrpc",),
    ("id",),
    ("method",),
    ("params",),
    ("extra",),
    ("params", "name"),
    ("params", "arguments"),
    ("params", "arguments", "personality"),
    ("params", "arguments", "message"),
    ("params", "arguments", "runtime"),
    ("params", "arguments", "topic"),
    ("params", "arguments", "attachments"),
    ("params", "arguments", "other"),
    ("params", "cursor"),
    ("params", "protocolVersion"),
    ("params", "clientInfo"),
    ("params", "clientInfo", "name"),
    ("params", "clientInfo", "version"),
    ("params", "_meta"),
    ("params", "_meta", "iapeer/key"),
    ("params", "_meta", "io.modelcontextprotocol/protocolVersion"),
    ("params", "_meta", "io.modelcontextprotocol/clientCapabilities"),
]
VERSIONS = st.sampled_from(
    ["2024-11-05", "2025-03-26", "2025-11-25", NEWEST, "2031-01-01", "", "x"]
)
METHODS = st.sampled_from(
    ["ping", "tools/list", "tools/call", "initialize", "server/discover", "x"]
)
GONE = object()


@st.composite
def changed(draw: st.DrawFn) -> Ask:
    """A good request with up to three members or headers replaced or left out."""
    headers, body = copy.deepcopy(SAME[draw(st.sampled_from(BASES))])
    assert isinstance(headers, dict)
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=2)):
        _put(body, path, draw(st.just(GONE) | JSONS | METHODS))
    for name, values in (("MCP-Protocol-Version", VERSIONS), ("Mcp-Method", METHODS)):
        match draw(st.integers(0, 5)):
            case 0:
                headers.pop(name, None)
            case 1:
                headers[name] = draw(values)
    return headers, body


def _put(body: Any, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(body, dict) or key not in body:
            return
        body = body[key]
    if isinstance(body, dict):
        if value is GONE:
            body.pop(path[-1], None)
        else:
            body[path[-1]] = value


def explained(ask: Ask, ours: Answer, sdk: Answer) -> bool:
    """Tell whether one of the chosen differences is what is seen."""
    body = ask[1]
    if ours.short == "400 -32600":
        malformed_id = "method" in body and "id" in body and type(body["id"]) not in {int, str}
        return sdk.short == "400 -32602" or (sdk.short == "202" and malformed_id)
    if ours.short in {"200 -32601", "404 -32601"}:
        return sdk.short in {"200 -32602", "400 -32602"}
    return (ours.short, sdk.short) == ("406 -32600", "406")


@given(ask=changed())
@example(ask=SAME["call"])
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_change_to_a_good_request_has_the_same_answer_from_both(both: Pair, ask: Ask) -> None:
    headers, body = ask[0], body_of(ask)
    ours, sdk = both.ask(headers, body), both.ask_sdk(headers, body)
    assert plain(ours) == plain(sdk) or explained(ask, ours, sdk), (ours.short, sdk.short)
