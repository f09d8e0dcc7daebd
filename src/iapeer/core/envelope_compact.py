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
_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}.*")


def render_for_agent(text: str, now: datetime) -> str:
    """Return one envelope in the compact form, as read at `now` (aware, in the reader's zone).

    Fail-open: text that is not exactly one envelope is returned unchanged. Body and paths stay
    CDATA when they contain anything of the envelope's own markup, in any case, or a CR; a
    plain `<` stays raw. `ts` becomes `HH:MM:SS` on the day of `now`, else with the date before
    it, and stays verbatim when it is no ISO time.
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


def _clock_time(ts: str, now: datetime) -> str:
    if _ISO_TIME.fullmatch(ts) is None:
        return ts
    try:
        moment = datetime.fromisoformat(ts)
        if moment.tzinfo is not None and now.tzinfo is not None:
            moment = moment.astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return ts
    local = moment.replace(tzinfo=None, microsecond=0)
    return local.time().isoformat() if local.date() == now.date() else local.isoformat(" ")
