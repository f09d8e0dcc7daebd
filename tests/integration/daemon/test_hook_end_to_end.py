from __future__ import annotations

import asyncio
import json
import sys

import pytest

from iapeer.core import env
from tests.integration.daemon.support import ALICE_TOKEN, Edge, child_environ

pytestmark = pytest.mark.anyio


async def run_hook(environ: dict[str, str], data: bytes, *argv: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "iapeer.client.hook",
        *argv,
        env=child_environ(environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate(data)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_hook_reports_the_prompt_of_its_own_session_and_says_nothing(edge: Edge) -> None:
    environ = edge.environ | {env.SESSION_TOKEN: ALICE_TOKEN}
    hook = json.dumps({"hook_event_name": "UserPromptSubmit", "prompt": "hi <iap>"}).encode()
    assert await run_hook(environ, hook) == (0, "", "")
    assert edge.evidence.seen == [("session-1", "hi <iap>")]


async def test_outside_a_session_the_hook_does_nothing(edge: Edge) -> None:
    assert await run_hook(edge.environ, b'{"prompt":"x"}') == (0, "", "")
    assert edge.evidence.seen == []


async def test_a_failing_hook_is_one_line_on_stderr_and_status_0(edge: Edge) -> None:
    good = edge.environ | {env.SESSION_TOKEN: ALICE_TOKEN}
    lost = good | {env.DAEMON_SOCKET: "/nonexistent/sock"}
    wrong = good | {env.SESSION_TOKEN: "wrong"}
    for environ, data, words in (
        (lost, b'{"prompt":"x"}', "no daemon answers"),
        (wrong, b'{"prompt":"x"}', "the daemon answered 401"),
        (good, b"no json", "the daemon answered 400"),
        (good, b"x" * ((1 << 20) + 1), "longer than 1048576 bytes"),
        (good | {env.SESSION_TOKEN: "a\nb"}, b'{"prompt":"x"}', "line break"),
    ):
        status, out, err = await run_hook(environ, data)
        assert (status, out) == (0, "")
        assert words in err
        assert err.count("\n") == 1
    assert edge.evidence.seen == []


async def test_only_a_wrong_command_line_is_a_failure(edge: Edge) -> None:
    status, out, err = await run_hook(edge.environ, b"", "--help")
    assert (status, out) == (2, "")
    assert err.startswith("usage:")
