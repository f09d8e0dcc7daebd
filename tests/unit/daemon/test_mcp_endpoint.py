"""Whatever is posted to `/mcp`, the answer is JSON-RPC or nothing, and never a server error."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from iapeer.core.errors import PeerNotFound
from iapeer.core.settings import Settings, make_settings
from iapeer.daemon.auth import Listener, headers_of
from iapeer.daemon.mcp.endpoint import McpEndpoint
from iapeer.daemon.mcp.tool import SCHEMA
from iapeer.daemon.services import Services

NEWEST = "2026-07-28"
GOOD = {"Content-Type": "application/json", "Accept": "application/json", "X-IAPeer-Token": "t"}
STATUSES = {200, 202, 400, 404, 406, 415}


async def somebody(_token: str) -> Any:
    return SimpleNamespace(address="claude-alice")


async def nobody(*_: object, **__: object) -> Any:
    raise PeerNotFound("unknown peer")


class Asker:
    def __init__(self, config: Settings) -> None:
        fakes = SimpleNamespace(
            tokens=SimpleNamespace(caller_of=somebody, registered=nobody),
            postman=SimpleNamespace(send=nobody),
            version="1.2.3",
        )
        self._endpoint = McpEndpoint(config, cast("Services", fakes))
        self._runner = asyncio.Runner()

    def __call__(
        self, body: bytes, headers: Mapping[str, str] = GOOD
    ) -> tuple[int, dict[str, str], Any]:
        return self._runner.run(self._ask(body, headers))

    def close(self) -> None:
        self._runner.close()

    async def _ask(
        self, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], Any]:
        pairs = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
        ]
        state: dict[str, Any] = {"listener": Listener.TCP, "peer": None, "body": body}
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "headers": pairs,
            "state": state,
        }
        state["headers"] = headers_of(scope)
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._endpoint(scope, receive, send)
        start, last = sent
        named = {name.decode(): value.decode() for name, value in start["headers"]}
        assert int(named["content-length"]) == len(last["body"])
        return start["status"], named, json.loads(last["body"]) if last["body"] else None


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    home: Path = tmp_path_factory.mktemp("home")
    asker = Asker(make_settings({"HOME": str(home), "IAPEER_ROOT": str(home), "IAPEER_PORT": "0"}))
    yield asker
    asker.close()


def check(status: int, headers: Mapping[str, str], answer: Any) -> None:
    assert status in STATUSES
    if answer is None:
        assert status == 202
        return
    assert headers["content-type"] == "application/json"
    assert answer["jsonrpc"] == "2.0"
    assert isinstance(answer["id"], int | str | None)
    assert ("error" in answer) != ("result" in answer)
    if "error" in answer:
        assert isinstance(answer["error"]["code"], int)
        assert answer["error"]["message"]


TEXT = st.text(st.characters(codec=None, categories=None), max_size=8)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        *["initialize", "ping", "tools/list", "tools/call", "server/discover", "prompts/get"],
        *("2.0", "send_to_peer", NEWEST, "2025-06-18"),
    ]
)
MEMBERS = st.sampled_from(
    [
        *[
            "jsonrpc",
            "id",
            "method",
            "params",
            "result",
            "error",
            "name",
            "arguments",
            "_meta",
            "cursor",
            "version",
        ],
        *["protocolVersion", "capabilities", "clientInfo", "iapeer/key"],
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
        *SCHEMA["properties"],
    ]
)
ANYTHING = st.recursive(
    JSONS | WORDS, lambda inner: st.dictionaries(MEMBERS, inner, max_size=5), max_leaves=12
)
MESSAGES = ANYTHING | st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers() | TEXT, "method": WORDS | TEXT},
    optional={"params": st.dictionaries(MEMBERS, ANYTHING, max_size=5)},
)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.just("application/json") | HEADER,
        "Accept": st.just("application/json") | HEADER,
        "MCP-Protocol-Version": WORDS | HEADER,
        "Mcp-Method": WORDS | HEADER,
        "Mcp-Name": WORDS | HEADER | HEADER.map("=?base64?{}?=".format),
        "X-IAPeer-Token": HEADER,
    },
)
FIXED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FIXED
@given(message=MESSAGES, more=HEADERS)
def test_any_json_gets_an_answer_of_json_rpc(
    ask: Asker, message: Any, more: dict[str, str]
) -> None:
    body = json.dumps(message).encode()
    check(*ask(body, GOOD | more))


@FIXED
@given(params=st.dictionaries(MEMBERS, ANYTHING, max_size=4), method=WORDS | TEXT)
def test_so_does_a_request_that_describes_itself_rightly(
    ask: Asker, params: dict[str, Any], method: str
) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    more = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": method, "Mcp-Name": "send_to_peer"}
    try:
        more["Mcp-Method"].encode("latin-1")
    except UnicodeEncodeError:
        more["Mcp-Method"] = "x"
    check(*ask(json.dumps(body).encode(), GOOD | more))


@FIXED
@given(body=st.binary(max_size=40))
def test_so_do_any_bytes(ask: Asker, body: bytes) -> None:
    check(*ask(body))


@pytest.mark.parametrize("depth", [100, 300, 900, 5_000, 100_000])
@pytest.mark.parametrize("where", ["params", "arguments", "attachments"])
def test_no_depth_of_nesting_is_too_much_to_say_no_to(ask: Asker, depth: int, where: str) -> None:
    deep = "[" * depth + "]" * depth
    inner = f'{{"{where}":{deep}}}' if where != "arguments" else f'{{"x":{deep}}}'
    params = f'{{"name":"send_to_peer","arguments":{inner}}}' if where != "params" else inner
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
    check(*ask(body.encode()))


def tool_text(answer: Any) -> str:
    assert answer["result"]["isError"] is True
    return str(answer["result"]["content"][0]["text"])


def test_arguments_just_short_of_the_readers_limit_are_refused_in_words(ask: Asker) -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):
        arguments = '{"x":' + "[" * depth + "]" * depth + "}"
        params = f'{{"name":"send_to_peer","arguments":{arguments}}}'
        body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
        status, _headers, answer = ask(body.encode())
        if status == 200:
            assert tool_text(answer).startswith("bad arguments: "), depth


@pytest.mark.parametrize("key", [5, [], "\ud800"])
def test_a_key_that_is_no_text_is_refused(ask: Asker, key: Any) -> None:
    params = {"name": "send_to_peer", "arguments": {}, "_meta": {"iapeer/key": key}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    _status, _headers, answer = ask(json.dumps(body).encode())
    assert "iapeer/key must be a string" in tool_text(answer)


@pytest.mark.requirement("mcp:stateless")
def test_a_session_id_is_neither_given_nor_asked_for(ask: Asker) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    for shown in ({}, {"Mcp-Session-Id": "made up"}):
        status, headers, answer = ask(body, GOOD | shown)
        assert (status, answer) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})
        assert "mcp-session-id" not in headers


def test_an_answer_is_kept_by_no_cache(ask: Asker) -> None:
    _status, headers, _answer = ask(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    assert headers["cache-control"] == "no-store"
