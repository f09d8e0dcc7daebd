"""The official MCP conformance suite finds in our endpoint what it finds in the SDK's own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from iapeer.daemon import app
from iapeer.daemon.services import Services
from iapeer.testing.agents.__main__ import in_ci
from iapeer.testing.agents.errors import AgentError
from iapeer.testing.agents.install import CACHE
from tests.integration.daemon.sdk_endpoint import sdk_manager
from tests.integration.daemon.support import cleanup, make_root, running, settings_for
from tests.real.mcp_suite import McpSuite, Rows, install

PROJECT = Path(__file__).parents[2]

PASSED = {
    ("server-initialize", "server-initialize"),
    ("ping", "ping"),
    ("tools-list", "tools-list"),
    ("tools-call-simple-text", "tools-call-simple-text"),
    ("tools-call-error", "tools-call-error"),
    ("dns-rebinding-protection", "localhost-host-rebinding-rejected"),
    ("dns-rebinding-protection", "localhost-host-valid-accepted"),
}
"""What a server with one tool can pass. The rest asks for tools called `test_...`, for prompts,
resources, logging and streams, which a server may do without."""


@pytest.fixture(scope="module")
def suite() -> McpSuite:
    try:
        return install(PROJECT / CACHE)
    except AgentError as error:
        if in_ci(os.environ):
            pytest.fail(f"gate not run: {error}", pytrace=False)
        pytest.skip(f"MCP conformance suite: {error}")


class SdkEndpoint:
    """The SDK's endpoint in the place of ours: behind the same gate, for the same services."""

    def __init__(self, services: Services, root: Path) -> None:
        self.manager = sdk_manager(settings_for(root), services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The gate has read the body; the SDK wants to read it by itself.
        whole = {"type": "http.request", "body": scope["state"]["body"], "more_body": False}
        kept: list[Message] = [whole]

        async def again() -> Message:
            return kept.pop() if kept else await receive()

        await self.manager.handle_request(scope, again, send)


async def ours(suite: McpSuite, home: Path, root: Path) -> Rows:
    async with running(root) as edge:
        return await asyncio.to_thread(suite.run, edge.server.url, home)


async def the_sdks(
    suite: McpSuite, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Rows:
    made: list[SdkEndpoint] = []

    def make(_settings: object, services: Services) -> SdkEndpoint:
        made.append(SdkEndpoint(services, root))
        return made[0]

    monkeypatch.setattr(app, "McpEndpoint", make)
    async with running(root) as edge, made[0].manager.run():
        return await asyncio.to_thread(suite.run, edge.server.url, home)


@pytest.mark.timeout(600)
@pytest.mark.requirement("mcp:handshake", "mcp:version", "mcp:tool:one")
def test_the_official_suite_finds_no_difference_to_the_sdks_own_server(
    suite: McpSuite, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root()
    try:
        for name in ("ours", "sdk"):
            (empty_home / name).mkdir()
        found = asyncio.run(ours(suite, empty_home / "ours", root))
        expected = asyncio.run(the_sdks(suite, empty_home / "sdk", root, monkeypatch))
    finally:
        cleanup(root)
    assert found == expected
    assert {row for row, status in found.items() if status == "SUCCESS"} == PASSED
