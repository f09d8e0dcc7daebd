"""How a moment is written where people and peers read it."""

from __future__ import annotations

import time


def local_iso(now: float) -> str:
    """Return local ISO-8601 with offset, seconds: the form of `ts` everywhere."""
    # `datetime` looks up the zone three times for it, four times as long; each message has one.
    local = time.localtime(now)
    minutes = (local.tm_gmtoff or 0) // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    offset = f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + offset
