"""How a moment is written where people and peers read it."""

from __future__ import annotations

from datetime import datetime


def local_iso(now: float) -> str:
    """Return local ISO-8601 with offset, seconds: the form of `ts` everywhere."""
    return datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")
