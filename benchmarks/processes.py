"""Whole processes: what a person or a hook waits for, against the interpreter that does nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.figures import Budget, Figure, Row, Size, by_turns, spread
from benchmarks.house import BOX, OPERATOR, house, run_time, token_of, wake
from benchmarks.installed import Installed, installed
from iapeer.core import env
from iapeer.testing.daemon import TestDaemon

PEERS = 100
NOTHING = "python -c pass"


def send(size: Size) -> list[Figure]:
    """`iapeer send` with a daemon that answers."""
    words = ["send", BOX, "Hello.", "--from", f"api-{OPERATOR}"]
    with installed() as ours, house() as daemon:
        return [
            _figure(
                daemon,
                "send",
                "`iapeer send`, whole process",
                (ours, words),
                Budget(ratio=2, gate=5),
                size.times(40),
            )
        ]


def hook(size: Size) -> list[Figure]:
    """The prompt hook of a live session, told a prompt that holds no message."""
    with installed() as place, house(peers=1) as daemon, tempfile.TemporaryFile() as said:
        wake(daemon, ["p0"])
        said.write(b'{"hook_event_name": "UserPromptSubmit", "prompt": "What is the time?"}')
        variables = {env.SESSION_TOKEN: token_of(daemon, "p0")}

        def begin() -> int:
            said.seek(0)
            return said.fileno()

        limit, ours = by_turns(
            lambda: run_time([place.python, "-c", "pass"], daemon.environ),
            lambda: run_time(
                [place.python, "-P", "-m", "iapeer.client.hook"],
                daemon.environ | variables,
                begin(),
            ),
            size.times(40),
        )
    return [
        Figure(
            row="hook",
            what="prompt hook, whole process",
            limit_what=NOTHING,
            unit="ms",
            limit=spread(limit, 1000),
            ours=spread(ours, 1000),
            budget=Budget(ratio=2.2, gate=5),
        )
    ]


def verbs(size: Size) -> list[Figure]:
    """`list --json` and `status` with 100 peers."""
    with installed() as ours, house(peers=PEERS) as daemon:
        return [
            _figure(
                daemon,
                "verbs",
                f"`iapeer {' '.join(words)}` with {PEERS} peers",
                (ours, words),
                Budget(ratio=8),
                size.times(25),
            )
            for words in (["list", "--json"], ["status"])
        ]


def _figure(  # noqa: PLR0913, PLR0917 - what a figure consists of
    daemon: TestDaemon,
    row: str,
    what: str,
    call: tuple[Installed, list[str]],
    budget: Budget,
    times: int,
) -> Figure:
    place, words = call
    # Where the process runs decides whose peer it is; the root is nobody's.
    here = Path.cwd()
    os.chdir(daemon.base)
    try:
        limit, ours = by_turns(
            lambda: run_time([place.python, "-c", "pass"], daemon.environ),
            lambda: run_time([place.program, *words], daemon.environ),
            times,
        )
    finally:
        os.chdir(here)
    return Figure(
        row=row,
        what=what,
        limit_what=NOTHING,
        unit="ms",
        limit=spread(limit, 1000),
        ours=spread(ours, 1000),
        budget=budget,
    )


ROWS = (Row("send", send), Row("hook", hook), Row("verbs", verbs))
