"""Finding envelopes in a stream of text, whatever else the stream contains."""

from __future__ import annotations

import re
from enum import Enum

from iapeer.core.envelope_codec import (
    BUFFER_MAX,
    CDATA_CLOSE,
    CDATA_OPEN,
    decode,
    read_attributes,
    sender_of,
)
from iapeer.core.errors import EnvelopeError

OPEN_TAG_MAX = 4096
"""Longest open tag: a topic of 200 characters escapes to 1200, names and ids are short."""

PROSE_WAIT_MAX = 1024
"""How much text that can't become an open tag is still waited on for its `>`."""

_MARKER = "<iap "
_CLOSE = "</iap>"
# Possessive, and nothing outside quotes may be `<`: an attempt ends at the next marker that is
# not inside its own quotes, so that all attempts together stay linear in the buffer.
# Groups are never possessive: up to Python 3.11.2 such a one forgets to go back when its last round
# fails half-way (gh-101955). Each round begins with a blank, so going back costs little.
_TAG = re.compile(r'<iap(?:\s++[^\s="<>]++(?:="[^">]*+")?)*\s*+>')
# Narrower: each attribute has a value, and a name ends; a long run of words is prose.
_TAG_SO_FAR = re.compile(
    r'<iap(?:\s++[^\s="<>]{1,64}+="[^">]*+")*(?:\s++(?:[^\s="<>]{1,64}+(?:=(?:"[^">]*+)?)?)?)?\Z'
)
_EVENT = re.compile(r"<!\[CDATA\[|</iap>|<iap ")
# Characters read in vain, per character of the buffer, before extraction stops looking into
# broken candidates: only hostile input gets there.
_PATIENCE = 8


class _Verdict(Enum):
    COMPLETE = "complete"
    WAIT = "wait"
    FALSE_START = "false start"
    CUT_SHORT = "cut short"


def extract(buffer: str) -> tuple[list[str], str]:
    """Return the complete envelopes in `buffer`, as text, and the rest for the next chunk.

    What is returned decodes. Prose, broken tags and envelopes cut short are skipped without
    losing the next real one; an envelope quoted in a body is part of that body. The rest is
    shorter than BUFFER_MAX: what does not end within it is dropped. The time is linear in the
    buffer for any input.
    """
    found: list[str] = []
    position = 0
    patience = _PATIENCE * len(buffer)
    while (start := buffer.find(_MARKER, position)) >= 0:
        verdict, end = _judge(buffer, start)
        if verdict is _Verdict.WAIT:
            return found, buffer[start:]
        if verdict is _Verdict.COMPLETE:
            found.append(buffer[start:end])
        if verdict is _Verdict.FALSE_START:
            patience -= end - start
            position = start + 1 if patience > 0 else _innermost(buffer, start, end)
        else:
            position = end
    return found, buffer[position:][-len(_MARKER) :]


def _judge(buffer: str, start: int) -> tuple[_Verdict, int]:
    """Judge the candidate at `start`; also return where reading it ended."""
    tag_end = _valid_tag_end(buffer, start)
    if tag_end is None:
        if buffer.find(">", start, start + OPEN_TAG_MAX) >= 0:
            return _Verdict.FALSE_START, start
        size = len(buffer) - start
        waits = size <= PROSE_WAIT_MAX or (
            size < OPEN_TAG_MAX and _TAG_SO_FAR.match(buffer, start) is not None
        )
        return (_Verdict.WAIT if waits else _Verdict.FALSE_START), start
    verdict, end = _find_end(buffer, start, tag_end)
    if verdict is _Verdict.COMPLETE:
        try:
            decode(buffer[start:end])
        except EnvelopeError:
            return _Verdict.FALSE_START, end
    return verdict, end


def _valid_tag_end(buffer: str, start: int) -> int | None:
    """Return the end of the open tag at `start` if it is complete and names a sender."""
    match = _TAG.match(buffer, start, start + OPEN_TAG_MAX)
    if match is None or sender_of(read_attributes(match[0])) is None:
        return None
    return match.end()


def _find_end(buffer: str, start: int, position: int) -> tuple[_Verdict, int]:
    """Find where the envelope with its content at `position` ends.

    A valid open tag outside CDATA says that it was cut short: reading on would give its sender
    the next one's body, and looking into what it held would take quotes for envelopes.
    """
    limit = min(len(buffer), start + BUFFER_MAX)
    while (event := _EVENT.search(buffer, position, limit)) is not None:
        position = event.end()
        if event[0] == _CLOSE:
            return _Verdict.COMPLETE, position
        if event[0] == CDATA_OPEN:
            section_end = buffer.find(CDATA_CLOSE, position, limit)
            if section_end < 0:
                break
            position = section_end + len(CDATA_CLOSE)
        elif _valid_tag_end(buffer, event.start()) is not None:
            return _Verdict.CUT_SHORT, event.start()
    waits = limit - start < BUFFER_MAX
    return (_Verdict.WAIT if waits else _Verdict.FALSE_START), limit


def _innermost(buffer: str, start: int, end: int) -> int:
    """Return the last place in the broken candidate where a real envelope could begin."""
    last = buffer.rfind(_MARKER, start + 1, end)
    return last if last > start else start + 1
