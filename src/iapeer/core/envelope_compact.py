"""The compact form an agent reads: the wire form with less ceremony, at the last hop only."""

from __future__ import annotations

import re
from datetime import datetime

from iapeer.core.envelope_codec import (
    INSTRUCTION,
    Envelope,
    cdata,
    decode,
    joined,
    open_tag,
)
from iapeer.core.envelope_stream import extract
from iapeer.core.errors import EnvelopeError

# Wider than the contract's list: any case, blanks inside the tag, attributes after the name.
_MACHINERY = re.compile(
    r"<\s*/?\s*(?:iap|message|msg|attachments)\b|<!\[CDATA\[|\]\]>|\r", re.IGNORECASE
)
LATE_S = 600.0
"""A reader is told how old a message is when it was sent longer ago than this."""

_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}.*")


def render_for_agent(text: str, now: datetime) -> str:
    """Return one envelope in the compact form, as read at `now` (aware, in the reader's zone).

    Fail-open: text that is not exactly one envelope is returned unchanged. Body and paths stay
    CDATA when they contain anything of the envelope's own markup, in any case, or a CR; a
    plain `<` stays raw. `ts` becomes `HH:MM:SS` on the day of `now`, else with the date before
    it, and stays verbatim when it is no ISO time. What was sent more than ten minutes ago also says
    so (`sent="3 h ago"`, an additive attribute).
    """
    whole = text.strip()
    try:
        envelope = decode(whole)
    except EnvelopeError:
        return text
    # What stands behind the closing tag is ignored by `decode`, and must not be lost here.
    return _render(envelope, now) if extract(whole) == ([whole], "") else text


def _render(envelope: Envelope, now: datetime) -> str:
    lines = [
        open_tag(
            (
                ("from", envelope.from_personality),
                ("runtime", envelope.from_runtime),
                ("intelligence", envelope.from_intelligence),
                ("ts", envelope.ts and _clock_time(envelope.ts, now)),
                ("sent", envelope.ts and _late(envelope.ts, now)),
                ("topic", envelope.topic),
                ("id", envelope.id),
                ("dup", envelope.dup),
            )
        ),
        INSTRUCTION,
    ]
    if envelope.attachments:
        lines.append(f"<attachments>{_gated(joined(envelope.attachments))}</attachments>")
    lines += [f"<msg>{_gated(envelope.body)}</msg>", "</iap>"]
    return "\n".join(lines)


def _gated(text: str) -> str:
    return cdata(text) if _MACHINERY.search(text) else text


def _moment(ts: str, now: datetime) -> datetime | None:
    """Return an ISO time in the zone of `now`, None when it is none."""
    if _ISO_TIME.fullmatch(ts) is None:
        return None
    try:
        moment = datetime.fromisoformat(ts)
        if moment.tzinfo is not None and now.tzinfo is not None:
            return moment.astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return None
    return moment


def _late(ts: str, now: datetime) -> str | None:
    """Return `3 h ago` for what was sent long before it is read, so that nobody acts as if new."""
    moment = _moment(ts, now)
    if moment is None or (moment.tzinfo is None) != (now.tzinfo is None):
        return None
    age_s = (now - moment).total_seconds()
    if age_s < LATE_S:
        return None
    for unit, seconds in (("d", 86400), ("h", 3600)):
        if age_s >= seconds:
            return f"{age_s // seconds:.0f} {unit} ago"
    return f"{age_s // 60:.0f} min ago"


def _clock_time(ts: str, now: datetime) -> str:
    moment = _moment(ts, now)
    if moment is None:
        return ts
    local = moment.replace(tzinfo=None, microsecond=0)
    return local.time().isoformat() if local.date() == now.date() else local.isoformat(" ")
