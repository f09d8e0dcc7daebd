"""mcp-agent-mail: an MCP server over HTTP with a database and a git archive; recipients ask."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from benchmarks.rivals.install import from_pip
from benchmarks.rivals.measure import (
    MARK,
    body_of,
    burst_of,
    clean_environ,
    closed_loop,
    marks_of,
    running,
    scratch,
)
from benchmarks.rivals.readings import Burst, NotRun, Plan, Reading, Rival
from benchmarks.wire import Connection, RequestFailed, encode
from iapeer.testing.daemon import free_port

VERSION = "0.1.0"
_START_S = 60.0
_SLOW_SAMPLES = 30
_SLOW_SINGLE = 40
_BURST_S = 60.0
"""How long senders go on with a burst; a full one would take it several minutes."""
_READER = "BlueLake"
"""It only takes names of its own kind, and makes up others."""
_WRITER = "GreenCastle"
_HEADERS = {"Accept": "application/json, text/event-stream"}


def prepare() -> Path:
    """Install it; it also needs git."""
    if shutil.which("git") is None:
        raise NotRun("git is missing")
    return from_pip("mcp-agent-mail")


def measure(python: Path, plan: Plan) -> Reading:
    """Start its HTTP server, send with `send_message`, and ask with `fetch_inbox`."""
    port = free_port()
    with scratch() as folder:
        environ = clean_environ(
            folder,
            LLM_ENABLED="false",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            TOOLS_LOG_ENABLED="false",
            LOG_RICH_ENABLED="false",
            STORAGE_ROOT=str(folder / "mail"),
            DATABASE_URL=f"sqlite+aiosqlite:///{folder}/mail.sqlite3",
        )
        argv = [str(python), "-m", "mcp_agent_mail.cli", "serve-http"]
        where = ["--host", "127.0.0.1", "--port", str(port)]
        with running([*argv, *where], environ, folder) as server:
            start_s = server.answer_time(lambda: _answers(port), _START_S)
            project = str(folder / "project")
            mail = _Mail(port, project)
            mail.register()
            sent, seen = mail.samples(min(plan.samples, _SLOW_SAMPLES))
            one = mail.burst(1, min(plan.single, _SLOW_SINGLE))
            many = mail.burst(plan.senders, plan.each) if plan.slow else None
            uss, pss = server.memory()
    return Reading(
        start_s=start_s,
        sent_s=sent,
        seen_s=seen,
        one=one,
        many=many,
        uss_mib=uss,
        pss_mib=pss,
    )


class _Mail:
    """Two agents of one project."""

    def __init__(self, port: int, project: str) -> None:
        self._port = port
        self._project = project

    def register(self) -> None:
        """Make the project and its agents."""
        with Connection(self._port) as connection:
            connection.ask(_call(self._port, "ensure_project", human_key=self._project))
            for name in (_READER, _WRITER):
                answer = connection.ask(
                    _call(
                        self._port,
                        "register_agent",
                        project_key=self._project,
                        program="benchmark",
                        model="none",
                        name=name,
                    )
                )
                if f'"{name}"'.encode() not in answer.replace(b'\\"', b'"'):
                    raise NotRun(f"it did not register {name}: {answer[:200]!r}")

    def samples(self, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Send, and ask as soon as the call has returned."""
        sent, seen = [], []
        with Connection(self._port) as writer, Connection(self._port) as reader:
            for number in range(count + 2):
                request = self._send(f"s-{number}")
                began = time.perf_counter()
                answer = writer.ask(request)
                sent.append(time.perf_counter() - began)
                found = marks_in(reader.ask(self._fetch(1)))
                seen.append(time.perf_counter() - began)
                if found != [f"s-{number}"]:
                    raise NotRun(f"sent s-{number}, found {found}: {answer[:200]!r}")
        return tuple(sent[2:]), tuple(seen[2:])

    def burst(self, senders: int, each: int) -> Burst:
        """Send a burst, then count what lies in the inbox."""
        marks = marks_of(senders, each, f"b{senders}")
        wanted = {mark for ones in marks for mark in ones}
        requests = [[self._send(mark) for mark in ones] for ones in marks]
        calls = closed_loop(self._port, requests, lambda body: b'"isError":false' in body, _BURST_S)
        with Connection(self._port) as reader:
            found = [mark for mark in marks_in(reader.ask(self._fetch(10_000))) if mark in wanted]
        arrived = len(set(found))
        return burst_of(calls, senders, arrived, len(found) - arrived, calls.seconds)

    def _send(self, mark: str) -> bytes:
        return _call(
            self._port,
            "send_message",
            project_key=self._project,
            sender_name=_WRITER,
            to=[_READER],
            subject=mark,
            body_md=body_of(mark),
        )

    def _fetch(self, limit: int) -> bytes:
        return _call(
            self._port,
            "fetch_inbox",
            project_key=self._project,
            agent_name=_READER,
            include_bodies=True,
            limit=limit,
        )


def marks_in(answer: bytes) -> list[str]:
    """Return the marks of the messages in an answer of `fetch_inbox`, once for each message.

    Raises NotRun for an answer that is an error.
    """
    result = json.loads(answer).get("result", {})
    if result.get("isError", True):
        raise NotRun(f"fetch_inbox failed: {answer[:200]!r}")
    items = result["structuredContent"]["result"]
    return [found[1] for item in items if (found := MARK.search(str(item.get("body_md"))))]


def _answers(port: int) -> bool:
    try:
        with Connection(port) as connection:
            return b'"result"' in connection.ask(_call(port, "health_check"))
    except (OSError, RequestFailed):
        return False


def _call(port: int, tool: str, **arguments: object) -> bytes:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    return encode("/mcp/", body, {**_HEADERS, "Host": f"127.0.0.1:{port}"})


RIVAL = Rival(
    name="mcp-agent-mail",
    version=VERSION,
    prepare=prepare,
    measure=measure,
    commands=("python -m mcp_agent_mail.cli serve-http --host 127.0.0.1 --port PORT",),
    entrance="MCP tool `send_message`, loopback",
    recipient="an agent that calls `fetch_inbox`; here at once when the send has returned",
    promise="it is in its database and committed to its git archive",
    rounds=2,
)
