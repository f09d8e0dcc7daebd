"""Text made safe for a place: a model's context, one line of a log, a line without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MASK = "***"
"""What a secret is replaced by."""

_LINE_ENDS = re.compile(r"\r\n?")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
# Controls, line and paragraph separators, bidirectional overrides, BOM, lone surrogates.
_BLANKS = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


class SafeText(msgspec.Struct, frozen=True):
    """Text without anything a terminal would act on; `altered` characters were changed."""

    text: str
    altered: int


def safe_text(text: str) -> SafeText:
    """Return `text` as a door to a model may pass it on; applied twice it changes nothing.

    CRLF and CR become LF. Dropped are C0 but LF and TAB, DEL, C1 (U+0080 to U+009F), BOM
    (U+FEFF) and lone surrogates. ESC is what matters: measured with tmux 3.3a, `ESC [ 201 ~`
    in a body ends the bracketed paste and what follows is typed as keys. `altered` counts the
    characters changed or dropped, a CRLF as one.
    """
    text, folded = _LINE_ENDS.subn("\n", text)
    text, dropped = _FORBIDDEN.subn("", text)
    return SafeText(text, folded + dropped)


def one_line(text: str, limit: int) -> str:
    """Return `text` on one line of at most `limit` characters, for logs and tables.

    Runs of white space and control characters (bidirectional overrides too: they reorder what
    stands beside them) become one blank; a cut ends in an ellipsis.
    """
    line = _BLANKS.sub(" ", text).strip()
    if len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…" if limit > 0 else ""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every occurrence of every secret masked, overlapping ones as a whole."""
    spans = sorted(span for secret in set(secrets) for span in _occurrences(text, secret))
    parts: list[str] = []
    shown_from = 0
    masked_to = -1
    for start, end in spans:
        if start > masked_to:
            parts += [text[shown_from:start], MASK]
        masked_to = max(masked_to, end)
        shown_from = masked_to
    return "".join(parts) + text[shown_from:]


def _occurrences(text: str, secret: str) -> list[tuple[int, int]]:
    if not secret:
        return []
    return [
        (match.start(), match.start() + len(secret))
        for match in re.finditer(f"(?={re.escape(secret)})", text)
    ]
