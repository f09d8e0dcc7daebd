"""What a session left behind is told by kinds, never by words."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from iapeer.sessions.forensics import probes, records


def test_records_are_told_by_their_kinds_only(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [
        {"type": "user", "text": "the secret plan"},
        {"type": "event", "payload": {"type": "task_complete", "message": "the secret plan"}},
        {"type": "the secret plan has blanks"},
        {"text": 1},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"type": "user", "text": "the sec'
    path.write_text(text, encoding="utf-8")
    found = records.kinds(path)
    assert [line.partition(" (")[0] for line in found] == [
        "type=user",
        "type=event type=task_complete",
        "unknown",
        "unknown",
        "no record",
    ]
    assert "secret" not in "".join(found)
    assert records.kinds(tmp_path / "none") == []


def test_a_pane_log_is_read_without_what_drew_it(tmp_path: Path) -> None:
    path = tmp_path / "p.log"
    path.write_bytes(
        b"\x1b[2J\x1b[1;31mError:\x1b[0m no money\r\n\x1b]0;title\x07bye\x07\r\n\r\n\x1b(B$ "
    )
    assert records.printed(path) == ["Error: no money", "bye", "$"]


def test_a_probe_that_fails_or_hangs_costs_only_itself() -> None:
    def broken() -> str:
        raise OSError("no such thing")

    assert "not to be had: OSError: no such thing" in probes.run("x", broken)
    held = threading.Event()
    assert "nothing within 0.05 s" in probes.run("x", lambda: str(held.wait(5)), 0.05)
    held.set()
    assert probes.run("x", lambda: "") == "--- x\n(nothing)\n"


def test_every_probe_of_this_system_finds_something() -> None:
    for name, probe in probes.host():
        section = probes.run(name, probe, 20.0)
        assert section.startswith(f"--- {name}\n")
        assert "not to be had" not in section
