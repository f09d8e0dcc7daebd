"""What a daemon imports before its sockets answer: a set, the same on every machine."""

from __future__ import annotations

import subprocess
import sys

_PROBE = "import sys, iapeer.host.run; print(*sys.modules)"
LATER = {
    # of others, each 5 to 600 ms: what needs it imports it
    *("filelock", "httpx2", "mcp", "psutil", "pydantic", "rich", "sse_starlette", "tomlkit"),
    *("watchfiles", "websockets"),
    # ours: by the first session that needs it
    *("iapeer.sessions.appserver", "iapeer.sessions.doors.appserver"),
    *("iapeer.sessions.httpserver", "iapeer.sessions.doors.http"),
    "iapeer.sessions.prompt",
    # by other processes
    *("iapeer.cli", "iapeer.apps", "iapeer.testing", "iapeer.sessions.forensics.probes"),
}


def test_a_daemon_starts_without_what_only_some_of_its_work_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, timeout=60, check=True
    )
    modules = set(done.stdout.decode().split())
    assert modules >= {"iapeer.daemon.server", "iapeer.routing.lanes.lane", "iapeer.host.doors"}
    assert modules & LATER == set()
