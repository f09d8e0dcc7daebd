from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.integration.daemon.support import ALICE_TOKEN, Edge

pytestmark = pytest.mark.anyio

GENERATIONS = [("legacy", "2025-11-25"), ("2026-07-28", "2026-07-28"), ("auto", "2026-07-28")]
GOOD = {"personality": "bob", "message": "hello"}


@asynccontextmanager
async def client_of(
    edge: Edge, mode: str = "legacy", *, unix: bool = False, **headers: str
) -> AsyncIterator[Client]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx2.AsyncHTTPTransport(uds=edge.sock) if unix else None
    url = "http://localhost/mcp" if unix else edge.server.url
    async with (
        httpx2.AsyncClient(headers=named, transport=transport, timeout=10) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def only_text(result: types.CallToolResult) -> str:
    (item,) = result.content
    assert isinstance(item, types.TextContent)
    return item.text


@pytest.mark.requirement(
    "mcp:tool:one",
    "mcp:tool:schema",
    "mcp:tool:annotations",
    "mcp:tool:no-roster",
    "mcp:anonymous",
)
@pytest.mark.parametrize(("mode", "version"), GENERATIONS)
async def test_both_protocol_generations_list_exactly_one_tool_without_an_identity(
    edge: Edge, mode: str, version: str
) -> None:
    async with client_of(edge, mode) as client:
        assert client.protocol_version == version
        (tool,) = (await client.list_tools()).tools
    assert tool.name == "send_to_peer"
    assert tool.meta == {"anthropic/alwaysLoad": True}
    schema = tool.input_schema
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["personality", "message"]
    fields = schema["properties"]
    assert fields["personality"]["pattern"] == "^[a-z][a-z0-9-]{0,31}$"
    assert fields["runtime"]["pattern"] == "^[a-z][a-z0-9]{0,31}$"
    assert fields["message"] | {"minLength": 1, "maxLength": 16000} == fields["message"]
    assert fields["topic"]["maxLength"] == 200
    assert fields["attachments"]["maxItems"] == 20
    hints = tool.annotations
    assert hints is not None
    assert (hints.title, hints.read_only_hint, hints.destructive_hint) == (
        "Send to IAP peer",
        False,
        False,
    )
    assert (hints.idempotent_hint, hints.open_world_hint) == (False, True)
    words = tool.description or ""
    assert "<iap" in words
    for roster in ("Known peers", "Runtimes:", "bob", "ci-bot"):
        assert roster not in words


@pytest.mark.requirement("mcp:handshake", "mcp:version")
async def test_the_handshake_tells_name_real_version_tools_only_and_no_instructions(
    edge: Edge,
) -> None:
    async with client_of(edge, "legacy") as client:
        info = client.server_info
        assert info is not None
        assert (info.name, info.version) == ("iapeer", "9.8.7")
        assert client.instructions is None
        offered = client.server_capabilities.model_dump(exclude_none=True)
        assert set(offered) == {"tools"}


@pytest.mark.requirement("mcp:call:per-request", "mcp:call:structured", "send:result:delivered")
@pytest.mark.parametrize(("mode", "_version"), GENERATIONS)
async def test_a_call_with_a_session_token_sends_as_the_tokens_owner(
    edge: Edge, mode: str, _version: str
) -> None:
    meta = cast("types.RequestParamsMeta", {"iapeer/key": "k1"})
    arguments: dict[str, Any] = GOOD | {"topic": "t", "runtime": "codex", "attachments": ["/a"]}
    async with client_of(edge, mode, X_IAPeer_Token=ALICE_TOKEN) as client:
        result = await client.call_tool("send_to_peer", arguments, meta=meta)
    assert not result.is_error
    assert result.structured_content == json.loads(only_text(result))
    assert result.structured_content["delivered_to"] == {"personality": "bob", "runtime": "codex"}
    assert result.structured_content["ok"] is True
    (sent,) = edge.postman.sent
    assert (sent.caller, sent.path, sent.key) == ("claude-alice", "mcp", "k1")
    assert sent.draft.attachments == ("/a",)


@pytest.mark.requirement("mcp:call:per-request")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_token_may_also_come_in_authorization_and_the_unix_socket_serves_mcp_too(
    edge: Edge, mode: str
) -> None:
    async with client_of(edge, mode, unix=True, Authorization=f"Bearer {ALICE_TOKEN}") as client:
        assert not (await client.call_tool("send_to_peer", GOOD)).is_error
    async with client_of(edge, mode, unix=True, X_IAPeer_Identity="claude-bob") as client:
        assert not (await client.call_tool("send_to_peer", GOOD)).is_error
    assert [sent.caller for sent in edge.postman.sent] == ["claude-alice", "claude-bob"]


@pytest.mark.requirement("caller:request:missing", "mcp:call:error")
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "missing or malformed x-iapeer-identity header"),
        ({"X_IAPeer_Identity": "claude-bob"}, "no session token"),
        ({"X_IAPeer_Token": "wrong"}, "unknown session token"),
        (
            {"X_IAPeer_Token": ALICE_TOKEN, "X_IAPeer_Identity": "claude-bob"},
            "the session token belongs to claude-alice",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_unproven_or_forged_identity_is_a_tool_error_and_nothing_is_sent(
    edge: Edge, mode: str, headers: dict[str, Any], words: str
) -> None:
    async with client_of(edge, mode, **headers) as client:
        result = await client.call_tool("send_to_peer", GOOD)
    assert result.is_error
    assert words in only_text(result)
    assert edge.postman.sent == []


@pytest.mark.requirement("mcp:call:error", "mcp:call:unknown-tool")
@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("send_to_nobody", GOOD, "unknown tool: send_to_nobody"),
        ("send_to_peer", {"personality": "bob"}, 'requires non-empty "personality"'),
        ("send_to_peer", GOOD | {"extra": 1}, "unknown field `extra`"),
        ("send_to_peer", GOOD | {"message": 5}, "Expected `str`"),
        ("send_to_peer", GOOD | {"message": "x" * 16_001}, "message exceeds 16000 char limit"),
        ("send_to_peer", GOOD | {"attachments": [3]}, "absolute local paths"),
        ("send_to_peer", GOOD | {"personality": "nobody"}, "iapeer list shows who is there"),
        ("send_to_peer", GOOD | {"personality": "crash"}, "internal error"),
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_every_failure_is_a_tool_error_of_one_text(
    edge: Edge, mode: str, tool: str, arguments: dict[str, Any], words: str
) -> None:
    async with client_of(edge, mode, X_IAPeer_Token=ALICE_TOKEN) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert words in only_text(result)
    assert "defect" not in only_text(result)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_prompts_and_resources_are_answered_with_method_not_found(
    edge: Edge, mode: str
) -> None:
    async with client_of(edge, mode) as client:
        for ask in (client.list_prompts, client.list_resources):
            with pytest.raises(MCPError) as caught:
                await ask()
            assert caught.value.error.code == types.METHOD_NOT_FOUND


async def test_lone_surrogates_are_refused_before_they_reach_anybody(edge: Edge) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "send_to_peer", "arguments": GOOD | {"message": "\ud800"}}
    old = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    modern = {
        "MCP_Protocol_Version": "2026-07-28",
        "Mcp_Method": "tools/call",
        "Mcp_Name": "send_to_peer",
        "X_IAPeer_Token": ALICE_TOKEN,
    }
    body = old | {"params": {**params, "_meta": meta}}
    both = (
        await edge.tcp("POST", "/mcp", old, X_IAPeer_Token=ALICE_TOKEN),
        await edge.tcp("POST", "/mcp", body, **modern),
    )
    for status, _headers, answer in both:
        assert status == 200, answer
        assert answer["result"]["isError"] is True
        assert "surrogate" in answer["result"]["content"][0]["text"]
    assert edge.postman.sent == []


@pytest.mark.requirement("daemon:paths")
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_mcp_takes_post_only(edge: Edge, method: str) -> None:
    status, headers, answer = await edge.tcp(method, "/mcp")
    assert (status, headers["allow"]) == (405, "POST")
    assert answer["jsonrpc"] == "2.0"
