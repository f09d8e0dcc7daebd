"""The texts that are sent: each holds its number, so that whoever shows it can be told apart."""

from __future__ import annotations

import re
from random import Random

from iapeer.core.envelope import decode, extract
from iapeer.core.errors import EnvelopeError

MARKER = "chaosbody"
"""Stands in every body and nowhere else: where it turns up, body text has leaked."""
_LENGTHS = (0, 0, 0, 40, 300, 1200, 6000)
"""Characters of filling; above 800 an agent folds the paste into a chip."""
_FORM = re.compile(rf"NOTHING\n{MARKER} (\d+) ([^\n]*)\.\Z")
_WORDS = "blätter 漢字 rustle <b>&amp;</b> 'quoted' $(id) under the «oak» "


def body_of(number: int) -> str:
    """Return the text with that number; the agent does not answer it."""
    length = Random(number).choice(_LENGTHS)  # noqa: S311 - variety, no secret
    filling = (_WORDS * (length // len(_WORDS) + 1))[:length].strip()
    return f"NOTHING\n{MARKER} {number} {filling}."


def number_in(body: str) -> int:
    """Return the number of one of our bodies, whole and unchanged, else 0."""
    found = _FORM.match(body)
    if found is None or body_of(int(found.group(1))) != body:
        return 0
    return int(found.group(1))


def any_number_in(text: str) -> int:
    """Return the first number in a text that may be damaged, else 0."""
    found = re.search(rf"{MARKER} (\d+)", text)
    return int(found.group(1)) if found else 0


def read_prompt(text: str) -> tuple[str, str, bool, int, bool]:
    """Return (message id, sender, dup, number, intact) of one prompt of an agent."""
    envelopes, _rest = extract(text)
    try:
        envelope = decode(envelopes[0]) if len(envelopes) == 1 else None
    except EnvelopeError:
        envelope = None
    if envelope is None:
        return "", "", False, any_number_in(text), False
    number = number_in(envelope.body)
    alone = text.strip() == envelopes[0].strip()
    is_ours = envelope.from_personality != "iapeer"
    intact = alone and (number > 0 or not is_ours)
    sender = f"{envelope.from_runtime}-{envelope.from_personality}"
    shown = number or any_number_in(envelope.body) * is_ours
    return envelope.id or "", sender, envelope.dup == "maybe", shown, intact
