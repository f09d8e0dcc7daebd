"""The demo agent sends through a real MCP server, keeps its connection and survives its loss."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcp_types as types

from tests.integration.apps.mcp_daemon import McpDaemon, delivered
from tests.integration.apps.pty_agent import PtyAgent, child_environment

FROM_BOB = '<iap from="bob" runtime="demo" id="abcdefghijkl">\nReply.\n<msg>{}</msg>\n</iap>'


def agent_of(daemon: McpDaemon, folder: Path) -> PtyAgent:
    return PtyAgent(
        folder, PEER_MCP_URL=daemon.url, PEER_IDENTITY="demo-alice", PEER_TOKEN="secret-token"
    )


def tell(agent: PtyAgent, body: str) -> None:
    agent.paste(FROM_BOB.format(body))
    agent.enter()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_answer_goes_through_the_tool_with_identity_and_token(tmp_path: Path) -> None:
    with McpDaemon() as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "hello\nworld")
        (tool,) = agent.wait_records("tool", 1)
        agent.wait_output("landed abcdefghijkl")
        arguments, headers, meta = daemon.calls[0]
        expected = {
            "personality": "bob",
            "runtime": "demo",
            "message": "got it: hello",
            "topic": "re: your message",
        }
        assert arguments == expected == tool["input"]
        assert headers["x-iapeer-identity"] == "demo-alice"
        assert headers["authorization"] == "Bearer secret-token"
        assert len(meta["iapeer/key"]) == 32
        assert tool["result"]["state"] == "landed"
        assert (tool["name"], tool["is_error"]) == ("send_to_peer", False)
        assert "secret-token" not in agent.output + agent.transcript.read_text(encoding="utf-8")


def test_the_connection_is_kept_across_sends(tmp_path: Path) -> None:
    with McpDaemon() as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "SEND carol one\nSEND carol two")
        agent.wait_records("tool", 2)
        tell(agent, "SEND dave three")
        agent.wait_records("tool", 3)
        assert [call[0]["message"] for call in daemon.calls] == ["one", "two", "three"]
        assert len(daemon.connections) == 1
        assert len({call[2]["iapeer/key"] for call in daemon.calls}) == 3


def test_keys_are_read_and_queued_while_a_call_is_open(tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def late(arguments: dict[str, Any]) -> types.CallToolResult:
        loops.append(asyncio.get_running_loop())
        await asyncio.wait_for(answer_now.wait(), 20)
        return await delivered(arguments)

    with McpDaemon(late) as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "SEND carol one")
        agent.wait(lambda: bool(loops), "open call")
        agent.wait_output("esc to interrupt")
        agent.type("SAY later")
        agent.wait_records("queue", 1)
        assert not agent.records("tool")
        loops[0].call_soon_threadsafe(answer_now.set)
        agent.wait_records("assistant", 1)
        order = [record["type"] for record in agent.records()]
        assert order.index("tool") < order.index("assistant")


def test_escape_gives_up_an_open_call_and_the_next_one_works(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def first_hangs(arguments: dict[str, Any]) -> types.CallToolResult:
        if arguments["message"] == "hang":
            await asyncio.wait_for(never.wait(), 20)
        return await delivered(arguments)

    with McpDaemon(first_hangs) as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "SEND carol hang")
        agent.wait(lambda: bool(daemon.calls), "open call")
        agent.write(b"\x1b")
        agent.wait_records("turn", 2)
        assert agent.records("turn")[-1]["status"] == "interrupted"
        tell(agent, "SEND carol two")
        (tool,) = agent.wait_records("tool", 1)
        assert tool["input"]["message"] == "two"
        assert tool["ms"] < 15_000


def test_a_refusal_is_shown_and_ends_the_turn(tmp_path: Path) -> None:
    async def refuse(_arguments: dict[str, Any]) -> types.CallToolResult:
        text = types.TextContent(type="text", text="peer offline: bob")
        return types.CallToolResult(content=[text], is_error=True)

    with McpDaemon(refuse) as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "hello")
        agent.wait_output("error: peer offline: bob")
        (tool,) = agent.wait_records("tool", 1)
        assert tool["is_error"]
        assert agent.wait_records("turn", 2)[-1]["status"] == "done"


def test_a_restarted_daemon_is_found_again(tmp_path: Path) -> None:
    with McpDaemon() as daemon, agent_of(daemon, tmp_path) as agent:
        agent.ready()
        tell(agent, "SEND carol one")
        agent.wait_records("tool", 1)
        daemon.__exit__()
        tell(agent, "SEND carol two")
        agent.wait_records("turn", 3)
        with McpDaemon(port=daemon.port) as again:
            (_, second) = agent.wait_records("tool", 2)
            assert not second["is_error"], second
            assert [call[0]["message"] for call in again.calls] == ["two"]


def test_without_a_daemon_the_error_is_shown_and_the_agent_lives(tmp_path: Path) -> None:
    with PtyAgent(tmp_path) as agent:
        agent.ready()
        tell(agent, "hello")
        agent.wait_output("PEER_MCP_URL is not set")
        agent.type("SAY alive")
        agent.wait_records("assistant", 1)
    with PtyAgent(tmp_path, PEER_MCP_URL=f"http://127.0.0.1:{free_port()}/mcp") as agent:
        agent.ready()
        tell(agent, "hello")
        agent.wait_records("user", 3)
        agent.write(b"\x1b")
        agent.wait_output("Interrupted")


IMPATIENT = """
import json, os, queue, sys
from iapeer.apps.demo_agent import mcp_send
mcp_send.RETRY_S = mcp_send.CALL_S = 1.0
ended = queue.Queue()
mcp_send.Sender(sys.argv[1], {}, ended.put).submit(7, {"personality": "bob", "message": "x"})
outcome = ended.get(timeout=50)
print(json.dumps([outcome.number, outcome.is_error, outcome.result, outcome.ms]), flush=True)
os._exit(0)
"""


def ended(url: str) -> tuple[str, int]:
    """Return the error and the milliseconds of a call by an impatient sender."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPATIENT, url],
        env=child_environment(),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    number, is_error, result, ms = json.loads(done.stdout)
    assert (number, is_error, done.stderr) == (7, True, "")
    return result["error"], ms


def test_a_daemon_that_stays_away_is_tried_for_a_while_and_given_up() -> None:
    error, ms = ended(f"http://127.0.0.1:{free_port()}/mcp")
    assert "ConnectError" in error
    assert ms >= 1000


def test_a_call_without_an_answer_ends() -> None:
    async def never(_arguments: dict[str, Any]) -> types.CallToolResult:
        await asyncio.sleep(30)
        raise AssertionError

    with McpDaemon(never) as daemon:
        error, _ = ended(daemon.url)
        assert error == "no answer within 1 s"
        assert len(daemon.calls) == 1
