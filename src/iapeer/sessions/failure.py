"""How long a failed turn's reason lasts: pure reading of what the runtime told."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from iapeer.core.states import HoldReason
from iapeer.runtimes.spec import Errors

from .evidence import Fact

MAX_WAIT_S = 8 * 86400.0
"""Longest pause that is believed: the longest known quota window is a week."""

_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*([ap]m)?", re.IGNORECASE)


def hold_of(fact: Fact, errors: Errors) -> HoldReason:
    """Return the reason new messages wait for after this failure."""
    return HoldReason.QUOTA if fact.error in errors.quota else HoldReason.API_ERROR


def reset_of(fact: Fact, errors: Errors, now: float) -> float | None:
    """Return the wall time at which the reason is over; None when nobody says.

    Times in the past and further away than `MAX_WAIT_S` are nonsense and count as unsaid.
    """
    found = fact.reset_at
    for expression in errors.reset:
        if found is not None:
            break
        match = re.search(expression, fact.words, re.IGNORECASE)
        if match is not None:
            found = _read(match.groupdict(), now)
    return found if found is not None and now < found <= now + MAX_WAIT_S else None


def _read(groups: dict[str, str | None], now: float) -> float | None:
    if groups.get("epoch"):
        epoch = float(groups["epoch"] or 0)
        # Some give milliseconds.
        return epoch / 1000 if epoch > 1e11 else epoch
    if groups.get("clock"):
        return _next_clock(groups["clock"] or "", now)
    units = (("seconds", 1), ("minutes", 60), ("hours", 3600))
    parts = [float(groups[name] or 0) * size for name, size in units if groups.get(name)]
    return now + sum(parts) if parts else None


def _next_clock(text: str, now: float) -> float | None:
    """Return the next time the local clock shows `15:30`, `3pm` or `3:30 PM`."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), (match[3] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59:
        return None
    local = datetime.fromtimestamp(now).astimezone()
    found = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if found <= local:
        found += timedelta(days=1)
    return found.timestamp()
