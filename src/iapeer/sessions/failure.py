"""How long a failed turn's reason lasts: pure reading of what the runtime told."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from iapeer.core.states import HoldReason
from iapeer.runtimes.spec import Errors

from .evidence import Fact

MAX_WAIT_S = 8 * 86400.0
"""Longest pause that is believed: the longest known quota window is a week."""

_MINUTE_S = 60.0
_LATE_S = 900.0
"""A clock's time that has passed by less was told late, it is not tomorrow's."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(r"([A-Za-z]{3})[a-z]* (\d{1,2})(?:, (\d{4}))?")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*([ap]m)?", re.IGNORECASE)


def hold_of(fact: Fact, errors: Errors) -> HoldReason:
    """Return the reason new messages wait for after this failure."""
    return HoldReason.QUOTA if fact.error in errors.quota else HoldReason.API_ERROR


def reset_of(fact: Fact, errors: Errors, now: float) -> float | None:
    """Return the wall time at which the reason is over; None when nobody says.

    Times in the past and further away than `MAX_WAIT_S` are nonsense and count as unsaid.
    """
    found = fact.reset_at
    said = now if fact.at is None else min(fact.at, now)
    for expression in errors.reset:
        if found is not None:
            break
        match = re.search(expression, fact.words, re.IGNORECASE)
        if match is not None:
            found = _read(match.groupdict(), said)
    return found if found is not None and now < found <= now + MAX_WAIT_S else None


def _read(groups: dict[str, str | None], said: float) -> float | None:
    if groups.get("epoch"):
        epoch = float(groups["epoch"] or 0)
        # Some give milliseconds.
        return epoch / 1000 if epoch > 1e11 else epoch
    if groups.get("clock"):
        return _at_clock(groups["clock"] or "", groups.get("date") or "", said)
    units = (("seconds", 1), ("minutes", 60), ("hours", 3600))
    parts = [float(groups[name] or 0) * size for name, size in units if groups.get(name)]
    return said + sum(parts) if parts else None


def _at_clock(text: str, date: str, said: float) -> float | None:
    """Return when the local clock shows `15:30`, `3pm` or `3:30 PM` next, or on a date.

    A time of the very minute in which it was said means before the end of that: the seconds are cut
    off (measured: Codex 0.169.0), and a wait of a few seconds must not become one of a day.
    """
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), (match[3] or "").lower()
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59:
        return None
    local = datetime.fromtimestamp(said).astimezone()
    found = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if date:
        return _on_date(found, date)
    day = timedelta(days=1)
    last = found if found <= local else found - day
    passed_s = (local - last).total_seconds()
    if passed_s < _MINUTE_S:
        return last.timestamp() + _MINUTE_S
    return None if passed_s < _LATE_S else (last + day).timestamp()


def _on_date(clock: datetime, text: str) -> float | None:
    """Return that time on `Nov 25` (the next one) or `Nov 25, 2027`."""
    match = _DATE.fullmatch(text.strip())
    if match is None or match[1].lower() not in _MONTHS:
        return None
    year, month, day = (
        int(match[3] or clock.year),
        _MONTHS.index(match[1].lower()) + 1,
        int(match[2]),
    )
    try:
        found = clock.replace(year=year, month=month, day=day)
        if not match[3] and found < clock - timedelta(days=2):
            found = found.replace(year=year + 1)
    except ValueError:
        return None
    return found.timestamp()
