"""The daemon's start: until its unix socket answers, and until MCP does."""

from __future__ import annotations

import subprocess
import time

from benchmarks.figures import Budget, Figure, Row, Size, by_turns, spread
from benchmarks.house import prepare, run_time
from benchmarks.installed import Installed, installed
from benchmarks.wire import Connection, RequestFailed, encode
from iapeer.testing.daemon import TestDaemon

PEERS = 10
_POLL_S = 0.002
_LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


def start(size: Size) -> list[Figure]:
    """Both ways by turns with what each is measured against."""
    with installed() as place:
        return _measure(place, size)


def _measure(place: Installed, size: Size) -> list[Figure]:
    daemon = prepare(PEERS)
    try:
        times = size.times(8, least=2)
        sides = [
            by_turns(
                lambda: run_time([place.python, "-c", "pass"], daemon.environ),
                lambda: _start(place, daemon, mcp=False),
                times,
                warm=1,
            ),
            by_turns(
                lambda: run_time([place.python, "-c", "import mcp.server"], daemon.environ),
                lambda: _start(place, daemon, mcp=True),
                times,
                warm=1,
            ),
        ]
    finally:
        daemon.clean_up()
    words = (
        ("daemon: start to the unix socket answering", "python -c pass", Budget(ratio=20)),
        ("daemon: start to MCP answering", "python -c 'import mcp.server'", Budget(ratio=2)),
    )
    return [
        Figure(
            row="start",
            what=what,
            limit_what=limit_what,
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(ours, 1000),
            budget=budget,
        )
        for (what, limit_what, budget), (limit, ours) in zip(words, sides, strict=True)
    ]


def _start(place: Installed, daemon: TestDaemon, *, mcp: bool) -> float:
    """Return the seconds from the fork until the daemon answers; it is ended again."""
    with (daemon.base / "daemon.err").open("a") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(
            [place.program, "daemon"],
            env=daemon.environ,
            cwd=daemon.base,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
        try:
            while not (_mcp_answers(daemon) if mcp else _answers(daemon)):
                if process.poll() is not None:
                    raise RuntimeError(daemon.errors())
                time.sleep(_POLL_S)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(30)


def _answers(daemon: TestDaemon) -> bool:
    try:
        with Connection(daemon.socket) as connection:
            return bool(connection.ask(encode("/api/v1/ping")))
    except (OSError, RequestFailed):
        return False


def _mcp_answers(daemon: TestDaemon) -> bool:
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-06-18",
        "Host": f"127.0.0.1:{daemon.port}",
    }
    try:
        with Connection(daemon.port) as connection:
            return b"send_to_peer" in connection.ask(encode("/mcp", _LIST, headers))
    except (OSError, RequestFailed):
        return False


ROWS = (Row("start", start),)
