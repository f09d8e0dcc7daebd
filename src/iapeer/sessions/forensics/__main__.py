"""The recorder's last step: note what can be found out about a tmux server's death.

Run as `python -m iapeer.sessions.forensics <root> <report> <session> <counter> <kills>`. The report
is there already; the verdict is put into the ledger, and sections are added to the report.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from iapeer.core.errors import IapeerError
from iapeer.storage.ledger import postmortems
from iapeer.storage.ledger import sessions as rows
from iapeer.storage.ledger.offline import offline, offline_read
from iapeer.storage.ledger.rows import SessionRow
from iapeer.storage.paths import Paths

from . import probes, records
from .coroner import SCREEN_ROWS, Scene, boot_id, kernel_lines, postmortem, redactor_of
from .exits import lines_of
from .oom import Counter
from .redact import Redactor

WHOLE_S = 30
"""After this the process ends, whatever it is at: nobody waits for it, and nobody would end it."""


def main() -> None:
    """Give the verdict, then write the report."""
    root, report, session_id, counter, kills = sys.argv[1:]
    signal.alarm(WHOLE_S)
    paths, now = Paths(Path(root)), time.time()
    row, redactor = _session(paths, session_id)
    kernel = kernel_lines(row.started_at, now) if row is not None else []
    grown = Counter(counter, int(kills)).grown()
    if row is not None:
        _judge(paths, row, kernel, grown)
    sections = dict(probes.host())
    sections["memory-kills"] = lambda: _kills(grown, kernel)
    if row is not None:
        found = row
        sections["session"] = lambda: _about(found)
        sections["transcript"] = lambda: "\n".join(records.kinds(Path(found.transcript)))
        sections["deliveries"] = lambda: _deliveries(paths, session_id)
        sections["screen"] = lambda: _screen(paths, found, redactor)
    with Path(report).open("a", encoding="utf-8", errors="backslashreplace") as file:
        for name, probe in sections.items():
            section = probes.run(name, probe)
            file.write("\n".join(redactor.text(line) for line in section.split("\n")))
            file.flush()
        file.write("--- end\n")


def _session(paths: Paths, session_id: str) -> tuple[SessionRow | None, Redactor]:
    """Return the session and who keeps its secrets; without a ledger there is neither."""
    try:
        with offline_read(paths.ledger) as conn:
            row = rows.get_session(conn, session_id)
            return row, redactor_of(conn, row) if row is not None else Redactor()
    except IapeerError:
        return None, Redactor()


def _judge(paths: Paths, row: SessionRow, kernel: list[str], grown: int) -> None:
    """Put the verdict into the ledger, unless that is gone with its root."""
    found = [line for line in lines_of(paths.exits_log, row.id) if line.ev == "server-exit"]
    if not found or not paths.ledger.exists():
        return
    scene = Scene(
        what="server",
        at=found[-1].at or time.time(),
        watched=False,
        line=found[-1],
        memory_kills=grown,
        kernel=kernel,
        screen=records.printed(paths.pane_log(f"{row.runtime}-{row.personality}")),
    )
    with offline(paths.ledger) as conn:
        postmortem(conn, row, scene)


def _about(row: SessionRow) -> str:
    ready = _time(row.ready_at) if row.ready_at else "never"
    return (
        f"{row.runtime}-{row.personality} session {row.id}, {row.mode}\n"
        f"started {_time(row.started_at)}, ready {ready}\n"
        f"server {row.server_pid}, program {row.pane_pid}\n"
        f"boot {row.boot_id or '?'}, now {boot_id() or '?'}"
    )


def _deliveries(paths: Paths, session_id: str) -> str:

    with offline_read(paths.ledger) as conn:
        steps = postmortems.steps_of(conn, session_id)
    return "\n".join(
        f"{_time(step.at)} {step.message_id} {step.event} -> {step.state} attempt {step.attempt}"
        for step in steps
    )


def _kills(grown: int, kernel: list[str]) -> str:
    words = ("oom", "killed process", "segfault", "out of memory", "traps:")
    told = [line for line in kernel if any(word in line.lower() for word in words)]
    since = f"processes of its cgroup killed for memory since its start: {grown}"
    return "\n".join([since, *told[-20:]])


def _screen(paths: Paths, row: SessionRow, redactor: Redactor) -> str:
    shown = records.printed(paths.pane_log(f"{row.runtime}-{row.personality}"))
    if not shown:
        return "(went with the server; `pane_logs = true` in iapeer.toml keeps what panes print)"
    return "\n".join(redactor.screen(shown[-SCREEN_ROWS:]))


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


if __name__ == "__main__":
    main()
