"""From the accept to the bytes in a live program's hands: a TUI in raw mode that notes the time."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from iapeer.sessions.tmux.control import ControlClient
from iapeer.storage.atomic import write_text
from iapeer.storage.ledger import queries
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon

from benchmarks.figures import Budget, Figure, Row, Size, spread
from benchmarks.house import prepare, send_request, session_of, wake
from benchmarks.wire import Connection

_MANIFEST = """\
id = "line"

[launch]
argv = ["{python}", "-I", "{tui}"]

[launch.env]
NOTES = "{{cwd}}/notes"

[screen]
prompt_glyphs = [">"]
ready = ["^>"]
paste_patterns = ["[Pasted text"]
"""
_PEER = "p0"


def landing(size: Size) -> list[Figure]:
    """The limit is the same paste through a control client of our own, into the same program."""
    daemon = prepare(1)
    tui = Path(__file__).with_name("raw_tui.py")
    manifest = _MANIFEST.format(python=sys.executable, tui=tui)
    # The one peer of this house runs the program in raw mode under the usual runtime's name.
    write_text(daemon.root / "runtimes" / "line.toml", manifest)
    try:
        daemon.start()
        wake(daemon, [_PEER])
        samples = asyncio.run(_measure(daemon, size.times(150)))
    finally:
        daemon.clean_up()
    limit, sent, accepted = samples
    return [
        Figure(
            row="landing",
            what="accept -> bytes seen by a live raw-mode TUI",
            limit_what="tmux control-mode paste",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(accepted, 1000),
            budget=Budget(ratio=10, most=3, most_p99=15, gate=40),
            note="from the time in the ledger, which is before its commit",
        ),
        Figure(
            row="landing",
            what="the same from the sender's first byte",
            limit_what="tmux control-mode paste",
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(sent, 1000),
            budget=Budget(),
        ),
    ]


async def _measure(daemon: TestDaemon, times: int) -> tuple[list[float], list[float], list[float]]:
    """Return seconds of bare pastes, from sending to seeing, and from accepting to seeing."""
    row = session_of(daemon, _PEER)
    notes = Path(row.cwd) / "notes"
    client = await ControlClient.connect(Path(row.socket), f"{row.runtime}-{row.personality}", "tmux")
    limit, sent, accepted = [], [], []
    connection = Connection(daemon.socket)
    text = daemon.base / "paste"
    try:
        for turn in range(times + 3):
            write_text(text, send_request(number=turn).decode()[-2100:])
            seen = _count(notes)
            began = time.time()
            await client.request(
                [
                    ["load-buffer", "-b", "bench", str(text)],
                    ["paste-buffer", "-p", "-r", "-d", "-b", "bench", "-t", row.pane_id],
                ]
            )
            limit.append(await _seen(notes, seen) - began)
            await client.request([["send-keys", "-t", row.pane_id, "Enter"]])
            await _until(lambda: _count(notes) >= seen + 2)
            seen = _count(notes)
            began = time.time()
            answer = connection.ask(send_request(_PEER, turn))
            at = await _seen(notes, seen)
            await _until(lambda: _count(notes) >= seen + 2)
            sent.append(at - began)
            accepted.append(at - _accepted_at(daemon, answer))
    finally:
        await client.close()
    return limit[3:], sent[3:], accepted[3:]


async def _seen(notes: Path, before: int) -> float:
    """Return when the program saw the first byte after so many events."""
    await _until(lambda: _count(notes) > before)
    return float(notes.read_text().split("\n")[before])


async def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError("the program saw nothing for 10 s")
        await asyncio.sleep(0.0005)


def _count(notes: Path) -> int:
    return notes.read_bytes().count(b"\n") if notes.exists() else 0


def _accepted_at(daemon: TestDaemon, answer: bytes) -> float:
    message_id = str(json.loads(answer)["message_id"])
    with offline_read(Paths(daemon.root).ledger) as conn:
        row = queries.get(conn, message_id)
    if row is None:
        raise RuntimeError(message_id)
    return row.accepted_at


ROWS = (Row("landing", landing),)
