"""Whether a composer holds one known text and nothing else."""

from __future__ import annotations

import re
import unicodedata

from .screen import Marks, after_glyph, is_rule

_WHEN = re.compile(r'(?<=")(?:ts|sent)="[^"]*"')
"""What an open tag says of the time depends on when it is looked at."""
_UNSEEN = "ZCM"
"""First letters of the Unicode categories that a terminal shows as nothing, or moves."""


def holds_alone(capture: str, marks: Marks, text: str) -> bool:
    """Whether the composer in a plain capture holds this text, whole, and not a word more.

    The composer goes from a row with a glyph down to the last rule of the capture; whatever stands
    in between counts, so that an answer or another prompt above is never taken for a part of it.
    Blanks and characters that a terminal does not show are not compared. One mark of `shortened`,
    up to its `]`, may stand for the middle of a text, never for its beginning or its end.
    """
    wanted = _timeless(_squeezed(text))
    below = ""
    for row in reversed(_above_last_rule(capture)):
        part = after_glyph(row, marks.prompt_glyphs)
        if part is not None:
            shown = _timeless(_squeezed(row[part.start : part.end] + below))
            if shown and (shown == wanted or _is_shortened(shown, wanted, marks)):
                return True
        below = f"{row}\n{below}"
    return False


def ends_with(capture: str, marks: Marks, text: str) -> bool:
    """Whether a composer taller than the screen shows the end of this text, on all rows of it.

    What stands above, out of sight, is not known: the terminal keeps no true copy of it (measured:
    Claude Code 2.1.197 leaves rows of earlier pictures in the scrollback).
    """
    wanted = _squeezed(text)
    shown = _squeezed("".join(_above_last_rule(capture)))
    if not shown or len(shown) >= len(wanted):
        return False
    if wanted.endswith(shown):
        return True
    found = _cut_at_mark(shown, marks)
    return found is not None and found[0] in wanted and wanted.endswith(found[1])


def _above_last_rule(capture: str) -> list[str]:
    rows = capture.split("\n")
    return rows[: next((n for n in range(len(rows) - 1, -1, -1) if is_rule(rows[n])), 0)]


def _is_shortened(shown: str, wanted: str, marks: Marks) -> bool:
    found = _cut_at_mark(shown, marks)
    if found is None or len("".join(found)) >= len(wanted):
        return False
    return wanted.startswith(found[0]) and wanted.endswith(found[1])


def _cut_at_mark(shown: str, marks: Marks) -> tuple[str, str] | None:
    """Return what stands before and behind a mark of a shortened text, None where one is empty."""
    for mark in map(_squeezed, marks.shortened):
        first, found, rest = shown.partition(mark)
        last = rest.partition("]")[2]
        if found and first and last:
            return first, last
    return None


def _timeless(text: str) -> str:
    """Return a squeezed text without the times in its first open tag."""
    start = text.find("<iap")
    end = text.find(">", start)
    if start < 0 or end < 0:
        return text
    return text[:start] + _WHEN.sub("", text[start:end]) + text[end:]


def _squeezed(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c)[0] not in _UNSEEN)
