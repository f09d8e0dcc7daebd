"""From the accept to the bytes in a live program's hands: a TUI in raw mode that notes the time."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from benchmarks.figures import Budget, Figure, Row, Size, spread
from benchmarks.house import BODY, LINE, house, send_request, session_of, tui_manifest, wake
from benchmarks.wire import Connection
from iapeer.sessions.tmux.control import ControlClient
from iapeer.storage.atomic import write_text
from iapeer.storage.ledger import queries
from iapeer.storage.ledger.offline import offline_read
from iapeer.storage.paths import Paths
from iapeer.testing.daemon import TestDaemon

_PEER = "p0"
_WARM = 3
_POLL_S = 0.0005
_PATIENCE_S = 10.0


def landing(size: Size) -> list[Figure]:
    """The limit is the same paste through a control client of our own, into the same program."""
    manifest = tui_manifest(Path(__file__).with_name("raw_tui.py"))
    # The one peer of this house runs the program in raw mode under the usual runtime's name.
    with house(1, manifest) as daemon:
        wake(daemon, [_PEER])
        samples = asyncio.run(_measure(daemon, size.times(150)))
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


class _Eye:
    """What the program has noted: one line for the first byte of a paste, one for its Enter."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._known = 0

    async def first_byte(self) -> float:
        """Wait for the next paste and its Enter; return when its first byte was seen."""
        wanted = self._known + 2
        deadline = time.monotonic() + _PATIENCE_S
        while len(lines := self._lines()) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the program saw nothing for {_PATIENCE_S:g} s")
            await asyncio.sleep(_POLL_S)
        self._known = wanted
        return float(lines[wanted - 2])

    def catch_up(self) -> None:
        """Take what was noted until now as seen."""
        self._known = len(self._lines())

    def _lines(self) -> list[str]:
        return self._notes.read_text(encoding="ascii").split("\n")[:-1]


async def _measure(daemon: TestDaemon, times: int) -> tuple[list[float], list[float], list[float]]:
    """Return seconds of bare pastes, from sending to seeing, and from accepting to seeing."""
    row = session_of(daemon, _PEER)
    eye = _Eye(Path(row.cwd) / "notes")
    client = await ControlClient.connect(Path(row.socket), f"{LINE}-{_PEER}", "tmux")
    limit, sent, accepted = [], [], []
    connection = Connection(daemon.socket)
    text = daemon.base / "paste"
    write_text(text, BODY)
    eye.catch_up()
    load = ["load-buffer", "-b", "bench", str(text)]
    paste = ["paste-buffer", "-p", "-r", "-d", "-b", "bench", "-t", row.pane_id]
    try:
        for turn in range(times + _WARM):
            began = time.time()
            await client.request([load, paste])
            await client.request([["send-keys", "-t", row.pane_id, "Enter"]])
            limit.append(await eye.first_byte() - began)
            began = time.time()
            answer = connection.ask(send_request(_PEER, turn))
            seen = await eye.first_byte()
            sent.append(seen - began)
            accepted.append(seen - _accepted_at(daemon, answer))
    finally:
        await client.close()
    return limit[_WARM:], sent[_WARM:], accepted[_WARM:]


def _accepted_at(daemon: TestDaemon, answer: bytes) -> float:
    message_id = str(json.loads(answer)["message_id"])
    with offline_read(Paths(daemon.root).ledger) as conn:
        row = queries.get(conn, message_id)
    if row is None:
        raise RuntimeError(message_id)
    return row.accepted_at


ROWS = (Row("landing", landing),)
