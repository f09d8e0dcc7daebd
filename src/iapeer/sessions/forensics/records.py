"""What the session itself left behind: kinds of its last records, rows of its pane log."""

from __future__ import annotations

import json
import re
from pathlib import Path

TAIL_BYTES = 256 << 10
_RECORDS = 15
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]{0,39}")
_KINDS = ("type", "subtype", "op", "role", "status", "event")
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def kinds(transcript: Path) -> list[str]:
    """Return what kinds of records a transcript ends with, oldest first; never a word of them."""
    lines = [line for line in _tail(transcript).split(b"\n") if line.strip()]
    return [f"{_kind(line)} ({len(line)} bytes)" for line in lines[-_RECORDS:]]


def printed(pane_log: Path) -> list[str]:
    """Return the last rows a pane printed, without what drew them.

    A program that draws its screen anew again and again left more than its last screen there.
    """
    text = _ESCAPES.sub("", _tail(pane_log).decode("utf-8", "replace"))
    rows = [_CONTROL.sub("", row).rstrip() for row in re.split(r"[\r\n]+", text)]
    return [row for row in rows if row.strip()]


def _kind(line: bytes) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return "no record"
    if not isinstance(record, dict):
        return "no record"
    words = []
    for key in _KINDS:
        for holder in (record, record.get("payload")):
            value = holder.get(key) if isinstance(holder, dict) else None
            if isinstance(value, str) and _WORD.fullmatch(value):
                words.append(f"{key}={value}")
    return " ".join(words) or "unknown"


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read()
    except OSError:
        return b""
