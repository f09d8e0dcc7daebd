"""The short form of `make test-kill`: daemon, servers and agents die, and delivery tells no lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from iapeer.testing.chaos import report
from iapeer.testing.chaos.options import ChaosOptions
from iapeer.testing.chaos.runner import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SEED = int(os.environ.get("IAPEER_CHAOS_SEED", "1"))


def test_delivery_tells_no_lie_while_everything_is_killed() -> None:
    options = ChaosOptions(
        messages=100,
        kills=10,
        seed=SEED,
        # Measured: 20 s; a machine that has other work gets to its kills too.
        seconds=60.0,
        settle_s=20.0,
        senders=5,
        mcp_senders=1,
        agents=3,
        inboxes=1,
        # A mount would need root, and outlive a test that is killed.
        disk="rlimit",
    )
    result = run(options)
    assert report.passed(result), report.verdict(result)
    assert int(result.figures["kills"]) >= 3, report.verdict(result)
    assert int(result.figures["showings"]) >= 30, report.verdict(result)


def _of_root(base: str) -> list[str]:
    """Return the command lines of all living processes that belong to one root."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            mine = any(base in word for word in words) or base in str(process.environ())
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(words))
        except psutil.Error:
            continue
    return found


def test_an_interrupted_run_leaves_nothing_behind() -> None:
    command = [sys.executable, "-P", "-m", "iapeer.testing.chaos", "--disk", "rlimit"]
    command += ["--messages", "500", "--kills", "50"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8"
    ) as harness:
        assert harness.stderr is not None
        base, told = "", ""
        for line in harness.stderr:
            told += line
            base = line.partition(", root ")[2].strip() or base
            if "daemon starts" in line:
                break
        assert base, told
        assert _of_root(base)
        harness.send_signal(signal.SIGINT)
        harness.stderr.read()
        assert harness.wait(timeout=30) != 0
    deadline = time.monotonic() + 5
    while (left := _of_root(base)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert not Path(base).exists()
