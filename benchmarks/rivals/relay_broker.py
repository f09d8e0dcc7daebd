"""agent-relay 9.1.6: a broker in Rust that needs its cloud, which a stub on loopback stands for."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.rivals.install import from_npm
from benchmarks.rivals.measure import (
    Calls,
    Server,
    body_of,
    clean_environ,
    closed_loop,
    marks_of,
    running,
    scratch,
    until_quiet,
)
from benchmarks.rivals.notes import Notes
from benchmarks.rivals.readings import Burst, NotRun, Plan, Reading, Rival
from benchmarks.wire import Connection, RequestFailed, encode
from iapeer.testing.daemon import free_port

VERSION = "9.1.6"
_KEY = "benchmark"
_START_S = 30.0
_SLOW_SAMPLES = 30
_SLOW_SINGLE = 40
_QUIET_S = 10.0
_CALLS_S = 30.0
"""How long senders go on with a burst."""
_BURST_S = 60.0
"""How long the burst is watched; what has not arrived by then is still in its queue."""
_DATA = {
    "workspace_id": "w1",
    "api_key": "k1",
    "id": "a1",
    "agent_id": "a1",
    "name": "x",
    "token": "t1",
    "status": "online",
    "created_at": "2026-01-01T00:00:00Z",
}
"""What the broker asks its cloud for at the start: a workspace and names for its agents."""


class _Cloud(BaseHTTPRequestHandler):
    """Says yes to everything the broker registers; no message passes through it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer with an invented workspace and agent."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"ok": True, "data": _DATA}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PATCH = do_PUT = do_DELETE = do_POST  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def prepare() -> Path:
    """Install the broker alone: the rest of the package only starts it."""
    folder = from_npm("agent-relay-broker")
    found = list(folder.glob("node_modules/@agent-relay/broker-*/bin/agent-relay-broker"))
    if not found:
        raise NotRun("there is no broker for this platform")
    return found[0]


def measure(broker: Path, plan: Plan) -> Reading:
    """Start the broker, have it start a terminal program, and send by its HTTP API."""
    port = free_port()
    with scratch() as folder, _cloud() as cloud:
        environ = clean_environ(
            folder,
            AGENT_RELAY_TELEMETRY_DISABLED="1",
            RELAYCAST_BASE_URL=f"http://127.0.0.1:{cloud}",
            RELAY_BASE_URL=f"http://127.0.0.1:{cloud}",
            RELAYCAST_WS_URL=f"ws://127.0.0.1:{cloud}",
            RELAY_BROKER_API_KEY=_KEY,
            NOTES=str(folder / "notes"),
            ECHO="1",
        )
        # As `agent-relay local up` starts it.
        state = ["--persist", "--state-dir", str(folder / "s"), "--api-port", str(port)]
        with running([str(broker), "init", *state], environ, folder) as server:
            start_s = server.answer_time(lambda: _answers(port), _START_S)
            _spawn(port)
            return _round(server, port, Notes(folder / "notes"), plan, start_s)


def _round(server: Server, port: int, notes: Notes, plan: Plan, start_s: float) -> Reading:
    sent, seen = [], []
    with Connection(port) as connection:
        for number in range(min(plan.samples, _SLOW_SAMPLES) + 2):
            began = time.perf_counter()
            connection.ask(_request(port, f"s-{number}"))
            sent.append(time.perf_counter() - began)
            seen.append(notes.wait(f"s-{number}") - began)
    one = _burst(port, notes, 1, min(plan.single, _SLOW_SINGLE))
    many = _burst(port, notes, plan.senders, plan.each) if plan.slow else None
    uss, pss = server.memory()
    return Reading(
        start_s=start_s,
        sent_s=tuple(sent[2:]),
        seen_s=tuple(seen[2:]),
        one=one,
        many=many,
        uss_mib=uss,
        pss_mib=pss,
    )


def _burst(port: int, notes: Notes, senders: int, each: int) -> Burst:
    marks = marks_of(senders, each, f"b{senders}")
    wanted = {mark for ones in marks for mark in ones}
    requests = [
        [_request(port, mark, f"writer{who}") for mark in ones] for who, ones in enumerate(marks)
    ]
    began = time.perf_counter()
    calls: Calls = closed_loop(port, requests, lambda body: b'"success":true' in body, _CALLS_S)
    until_quiet(lambda: notes.different(wanted), len(wanted), _QUIET_S, _BURST_S)
    return notes.burst(calls, senders, wanted, began)


@contextmanager
def _cloud() -> Iterator[int]:
    """Serve the stub on a loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cloud)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _headers(port: int) -> dict[str, str]:
    return {"Host": f"127.0.0.1:{port}", "X-API-Key": _KEY}


def _answers(port: int) -> bool:
    """Ask for its agents: it is there before the cloud has answered, and then says so."""
    try:
        with Connection(port) as connection:
            return b'"authenticated":true' in connection.ask(
                encode("/api/status", None, _headers(port))
            )
    except (OSError, RequestFailed):
        return False


def _spawn(port: int) -> None:
    program = {
        "name": "reader",
        "cli": sys.executable,
        "args": ["-I", str(Path(__file__).with_name("eye.py"))],
        "channels": ["general"],
    }
    try:
        with Connection(port) as connection:
            connection.ask(encode("/api/spawn", program, _headers(port)))
    except (OSError, RequestFailed) as error:
        raise NotRun(f"it did not start the program: {error}") from error
    # It has no way to say that the program reads; nothing typed before counts.
    time.sleep(2)


def _request(port: int, mark: str, sender: str = "writer") -> bytes:
    body = {"to": "reader", "from": sender, "text": body_of(mark)}
    return encode("/api/send", body, _headers(port))


RIVAL = Rival(
    name="agent-relay, stub for its cloud",
    version=VERSION,
    prepare=prepare,
    measure=measure,
    commands=("agent-relay-broker init --persist --state-dir DIR --api-port PORT",),
    entrance="`POST /api/send`, loopback",
    recipient="a program in raw mode in its own pseudo-terminal",
    promise="it is in the broker's queue, of which it keeps a file",
    rounds=2,
)
