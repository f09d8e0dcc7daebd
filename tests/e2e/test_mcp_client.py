"""The official MCP client against the real daemon, with the token of a real session."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from iapeer.testing.daemon import TestDaemon

pytestmark = pytest.mark.e2e

GENERATIONS = ["legacy", "2026-07-28"]


def _token(daemon: TestDaemon) -> str:
    """The token a live session was given, from its own environment."""
    for pid, _ in daemon.session_processes():
        pairs = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
        found = dict(pair.partition("=")[::2] for pair in pairs)
        if token := found.get("PEER_TOKEN"):
            return token
    raise AssertionError("no session has a token")


async def _call(daemon: TestDaemon, mode: str, identity: str, token: str) -> tuple[list[str], str]:
    url = f"http://127.0.0.1:{daemon.port}/mcp"
    headers = {"X-IAPeer-Identity": identity}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        words = {"personality": "bob", "message": f"NOTHING\nby {mode}"}
        result = await client.call_tool("send_to_peer", words)
    text = getattr(result.content[0], "text", "")
    return tools, f"error: {text}" if result.is_error else text


@pytest.mark.parametrize("mode", GENERATIONS)
def test_both_generations_send_with_a_sessions_token_also_after_a_restart(
    iapeer_daemon: TestDaemon, mode: str
) -> None:
    daemon = iapeer_daemon
    daemon.create("ann", "bob")
    daemon.create("op", runtime="api")
    daemon.start()
    daemon.wait_state(daemon.send("ann", "NOTHING", "api-op")["message_id"], "seen")
    token = _token(daemon)

    tools, answer = asyncio.run(_call(daemon, mode, "demo-ann", token))
    assert tools == ["send_to_peer"]
    assert '"ok": true' in answer

    for identity, wrong in (("demo-bob", token), ("demo-ann", "0" * 64), ("demo-ann", "")):
        _, refused = asyncio.run(_call(daemon, mode, identity, wrong))
        assert refused.startswith("error: "), (identity, refused)

    daemon.kill()
    daemon.start()
    assert '"ok": true' in asyncio.run(_call(daemon, mode, "demo-ann", token))[1]
    senders = [p for p in daemon.prompts("bob") if f"by {mode}" in p]
    assert len(senders) == 2
    assert all('from="ann"' in p for p in senders)

    daemon.run("stop", "ann")
    assert asyncio.run(_call(daemon, mode, "demo-ann", token))[1].startswith("error: ")
