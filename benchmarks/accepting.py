"""Durable accepts: one sender, 32 senders, and the MCP tool."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bare_store import OneProducer, inserts_per_s, ledger_accepts_per_s
from benchmarks.figures import Budget, Figure, Row, Size, by_turns, spread
from benchmarks.house import BODY, BOX, house, send_request, token_of, wake
from benchmarks.load import PING
from benchmarks.wire import Connection, encode
from iapeer.testing.daemon import TestDaemon, free_port, wait_until

SENDERS = 32
MCP_HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-06-18",
}


def accept(size: Size) -> list[Figure]:
    """One sender on a kept connection; the recipient is a program that is not connected."""
    with house() as daemon, tempfile.TemporaryDirectory() as folder:
        store = OneProducer(Path(folder) / "bare.db")
        with Connection(daemon.socket) as connection:
            limit, ours = by_turns(
                lambda: store.insert(BODY.encode()),
                lambda: connection.time(send_request(number=next(_NUMBERS))),
                size.times(400),
            )
        store.close()
    return [
        Figure(
            row="accept",
            what="durable accept over the unix socket, 2 KB, 1 sender",
            limit_what="group-commit insert, FULL",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(ours, 1000),
            budget=Budget(ratio=3, gate=8),
        )
    ]


def accepts_per_s(size: Size) -> list[Figure]:
    """32 connections, each sending its next message when the last is answered."""
    each = size.times(40, least=4)
    limits, ledgers, pings, ours = [], [], [], []
    with house() as daemon:
        for turn in range(size.times(5, least=2)):
            with tempfile.TemporaryDirectory() as folder:
                bare, ledger = Path(folder) / "bare.db", Path(folder) / "state" / "ledger.db"
                limits.append(inserts_per_s(bare, SENDERS, each * 4, BODY.encode()))
                ledgers.append(ledger_accepts_per_s(ledger, SENDERS, each * 4, BODY))
            pings.append(_load(daemon, each * 4, PING))
            ours.append(_load(daemon, each, str(turn)))
    what = f"durable accepts over the unix socket, {SENDERS} senders"
    return [
        Figure(
            row="accepts-per-s",
            what=what,
            limit_what=f"a bare store of one table, {SENDERS} producers",
            unit="/s",
            limit=spread(limits),
            ours=spread(ours),
            budget=Budget(least_ratio=0.3),
        ),
        Figure(
            row="accepts-per-s",
            what=what,
            limit_what=f"our own ledger without a daemon, {SENDERS} producers",
            unit="/s",
            limit=spread(ledgers),
            ours=spread(ours),
            budget=Budget(least_ratio=0.3),
        ),
        Figure(
            row="accepts-per-s",
            what=what,
            limit_what=f"pings of the same server, {SENDERS} clients",
            unit="/s",
            limit=spread(pings),
            ours=spread(ours),
            budget=Budget(),
            note="HTTP alone: nothing is asked, checked or stored",
        ),
    ]


def mcp_call(size: Size) -> list[Figure]:
    """`tools/call` on a kept connection against the SDK's echo tool, by either parser of HTTP."""
    figures = []
    with house(peers=1) as daemon:
        wake(daemon, ["p0"])
        for parser, limit_what, budget in (
            ("h11", "the SDK's bare echo tool", Budget(ratio=1.5, gate=5)),
            ("httptools", "the same behind the parser that ours is behind", Budget()),
        ):
            limit, ours = _against_echo(daemon, parser, size.times(200))
            figures.append(
                Figure(
                    row="mcp",
                    what="MCP tools/call accept, 2 KB, 1 caller",
                    limit_what=limit_what,
                    unit="ms",
                    limit=spread(limit, 1000),
                    ours=spread(ours, 1000),
                    budget=budget,
                )
            )
    return figures


def _against_echo(daemon: TestDaemon, parser: str, times: int) -> tuple[list[float], list[float]]:
    token = {"X-IAPeer-Token": token_of(daemon, "p0"), **_host(daemon.port)}
    with (
        echo_server(parser) as port,
        Connection(port) as bare,
        Connection(daemon.port) as connection,
    ):
        return by_turns(
            lambda: bare.time(_echo(port)),
            lambda: connection.time(_send_to_box(token)),
            times,
        )


def _echo(port: int) -> bytes:
    return _call("echo", {"message": BODY}, _host(port))


def _send_to_box(token: dict[str, str]) -> bytes:
    message = f"{BODY}{next(_NUMBERS)}"
    return _call("send_to_peer", {"personality": BOX, "message": message}, token)


@contextmanager
def echo_server(parser: str) -> Iterator[int]:
    """Start `benchmarks.echo_server` and return its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo_server", str(port), parser])
    try:
        wait_until(lambda: _answers(port), 30, "the echo server")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        with Connection(port) as connection:
            connection.ask(_call("echo", {"message": "?"}, _host(port)))
    except OSError:
        return False
    return True


def _host(port: int) -> dict[str, str]:
    return {"Host": f"127.0.0.1:{port}"}


def _call(tool: str, arguments: dict[str, str], headers: dict[str, str] | None = None) -> bytes:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    return encode("/mcp", body, MCP_HEADERS | (headers or {}))


def _load(daemon: TestDaemon, each: int, mark: str) -> float:
    """Return answers per second; the senders are a process of their own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.load",
            daemon.socket,
            str(SENDERS),
            str(each),
            mark,
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return float(done.stdout)


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_NUMBERS = _numbers()

ROWS = (
    Row("accept", accept),
    Row("accepts-per-s", accepts_per_s),
    Row("mcp", mcp_call),
)
