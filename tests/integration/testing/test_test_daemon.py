"""A test daemon leaves nothing behind, not even what no ledger knows."""

from __future__ import annotations

import subprocess
import sys

from iapeer.sessions.process import is_alive, start_time
from iapeer.testing.daemon import TestDaemon

SLEEPER = "import os; os.setsid(); print(flush=True); os.read(0, 1)"


def _start(of: TestDaemon) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-S", "-c", SLEEPER],
        env=of.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.read(1) == b"\n"
    return started


def test_cleaning_up_ends_what_stands_in_no_ledger_and_nothing_of_anybody_else() -> None:
    mine, other = TestDaemon.make(), TestDaemon.make()
    started, beside = _start(mine), _start(other)
    try:
        start = start_time(started.pid)
        assert start is not None
        assert mine.clean_up() == [started.pid]
        assert not is_alive(started.pid, start)
        assert not mine.base.exists()
        assert beside.poll() is None
    finally:
        for one in (started, beside):
            one.communicate(b".")
    assert other.clean_up() == []
