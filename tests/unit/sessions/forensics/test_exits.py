"""exits.log as shells and programs write it, read back."""

from __future__ import annotations

from pathlib import Path

from iapeer.core.logfmt import format_line
from iapeer.sessions.forensics.exits import ExitLine, lines_of, read

SHELL = (
    "ts=2026-11-22T19:06:40Z ev=session-exit identity=demo-x dead_status=3 dead_signal="
    " signal_name= session=s1\n"
    "ts=2026-11-22T19:06:41Z ev=session-exit identity=demo-x dead_status= dead_signal=SIGKILL"
    " signal_name=KILL session=s2 part=own-server\n"
    "ts=2026-11-22T19:06:42Z ev=server-exit identity=demo-x server_pid=7 wait_rc=1"
    ' cause=server-vanished forensics="/a b/c\\"d/x.txt" session=s3\n'
    "nonsense\n"
    "ts=x ev=other\n"
)


def test_both_kinds_of_records_are_read(tmp_path: Path) -> None:
    log = tmp_path / "exits.log"
    log.write_text(SHELL, encoding="utf-8")
    first, second, third = read(log)
    assert (first.status, first.signal, first.session, first.at) == (3, None, "s1", 1795374400.0)
    assert (second.status, second.signal, second.own_server) == (None, 9, True)
    assert (third.cause, third.report) == ("server-vanished", '/a b/c"d/x.txt')
    assert lines_of(log, "s3") == [third]


def test_what_a_daemon_writes_is_read_as_well(tmp_path: Path) -> None:
    line = ExitLine(ev="session-exit", identity="demo-x", session="s", signal=15)
    text = line.text()
    assert "dead_status= dead_signal=15 signal_name=TERM session=s" in text
    log = tmp_path / "exits.log"
    log.write_text(text + "\n", encoding="utf-8")
    (found,) = read(log)
    assert (found.ev, found.signal, found.status) == ("session-exit", 15, None)


def test_a_rotated_log_is_read_before_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "exits.log"
    for name, session in (("exits.log.1", "old"), ("exits.log", "new")):
        pairs = (("ev", "session-exit"), ("session", session))
        (tmp_path / name).write_text(format_line(pairs) + "\n", encoding="utf-8")
    assert [line.session for line in read(log)] == ["old", "new"]


def test_no_log_has_no_records(tmp_path: Path) -> None:
    assert list(read(tmp_path / "exits.log")) == []
