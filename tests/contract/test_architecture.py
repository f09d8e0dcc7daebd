"""ARCHITECTURE.md says what the code does: its checked tables are compared with their sources."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from iapeer.core.states import TRANSITIONS, Event, HoldReason, MessageState

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def _table(heading: str) -> list[list[str]]:
    section = re.split(rf"^#+ {heading}.*$", TEXT, flags=re.MULTILINE)[1]
    rows = []
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows


def test_the_layer_table_is_what_the_import_check_enforces() -> None:
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = [c for c in contracts if c["type"] == "layers"]
    written = [re.findall(r"`(\w+)`", row[0]) for row in _table("Layers")[2:]]
    enforced = [[name.strip() for name in layer.split("|")] for layer in layers["layers"]]
    assert written == enforced
    packages = {p.name for p in (PROJECT / "src/iapeer").iterdir() if (p / "__init__.py").exists()}
    assert packages == {name for layer in enforced for name in layer}


def test_the_state_table_is_the_codes() -> None:
    head, _, *rows = _table("States")
    events = [Event(cell.strip("`")) for cell in head[1:]]
    assert set(events) == set(Event)
    written = {
        (MessageState(row[0].strip("`")), event): MessageState(cell.strip("`"))
        for row in rows
        for event, cell in zip(events, row[1:], strict=True)
        if cell != "·"
    }
    assert written == TRANSITIONS
    assert {row[0].strip("`") for row in rows} == set(MessageState)


def test_every_hold_reason_is_named() -> None:
    (line,) = re.findall(r"^Hold reasons: (.*?)\.$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", line)) == set(HoldReason)
