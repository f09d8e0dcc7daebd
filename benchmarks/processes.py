"""Whole processes: what a person or a hook waits for, against the interpreter that does nothing."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Budget, Figure, Row, Size, by_turns, spread
from benchmarks.house import BOX, OPERATOR, house, run_time, token_of, wake
from iapeer.core import env
from iapeer.storage.atomic import write_text
from iapeer.testing.daemon import TestDaemon

PEERS = 100
NOTHING = "python -c pass"
_PLAIN_SCRIPT = """\
#!{python}
import sys
from iapeer.cli.main import main
sys.exit(main())
"""
"""What installers write that do not mend a Windows name with a regular expression."""
_PROGRAM = str(Path(sys.executable).parent / "iapeer")


def send(size: Size) -> list[Figure]:
    """`iapeer send` as it is installed here, and with a start script that imports nothing."""
    words = ["send", BOX, "Hello.", "--from", f"api-{OPERATOR}"]
    budget, times = Budget(ratio=2, gate=5), size.times(40)
    with house() as daemon:
        plain = daemon.base / "iapeer"
        write_text(plain, _PLAIN_SCRIPT.format(python=sys.executable), mode=0o700)
        return [
            _figure(daemon, "send", what, [program, *words], budget, times)
            for what, program in (
                ("`iapeer send`, whole process", _PROGRAM),
                ("the same with a start script without `re`", str(plain)),
            )
        ]


def hook(size: Size) -> list[Figure]:
    """The prompt hook of a live session, told a prompt that holds no message."""
    with house(peers=1) as daemon, tempfile.TemporaryFile() as said:
        wake(daemon, ["p0"])
        said.write(b'{"hook_event_name": "UserPromptSubmit", "prompt": "What is the time?"}')
        variables = {env.SESSION_TOKEN: token_of(daemon, "p0")}

        def begin() -> int:
            said.seek(0)
            return said.fileno()

        limit, ours = by_turns(
            lambda: run_time([sys.executable, "-c", "pass"], daemon.environ),
            lambda: run_time(
                [sys.executable, "-P", "-m", "iapeer.client.hook"],
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
    with house(peers=PEERS) as daemon:
        return [
            _figure(
                daemon,
                "verbs",
                f"`iapeer {' '.join(words)}` with {PEERS} peers",
                [_PROGRAM, *words],
                Budget(ratio=8),
                size.times(25),
            )
            for words in (["list", "--json"], ["status"])
        ]


def _figure(  # noqa: PLR0913, PLR0917 - what a figure consists of
    daemon: TestDaemon, row: str, what: str, argv: list[str], budget: Budget, times: int
) -> Figure:
    # Where the process runs decides whose peer it is; the root is nobody's.
    here = Path.cwd()
    os.chdir(daemon.base)
    try:
        limit, ours = by_turns(
            lambda: run_time([sys.executable, "-c", "pass"], daemon.environ),
            lambda: run_time(argv, daemon.environ),
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
