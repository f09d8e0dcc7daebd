"""Pure reader of a captured pane: composer, busy, ready, dialog, tail.

Rows and marks only; nothing here knows a runtime. What a screen says is a hint for pressing keys,
never the proof that a message arrived.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from iapeer.sessions.sgr import INVERSE, Capture, Run, rendering

TAIL_MAX_CHARS = 160
"""Longest `Screen.tail` (contract: what a failed launch shows of its pane)."""

_TAIL_JOIN = " ⏎ "
DEAD_PANE = re.compile(r"Pane is dead( \(.*\)?)?")
"""The row tmux itself writes into a pane whose program has ended."""
_RULE_CHARS = frozenset("─━═╌╍┄┅┈┉╭╮╰╯┌┐└┘├┤▀▄▔▁▂")
_FRAME = ("│", "┃", "║")
_UNSEEN_END = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]+\Z")
"""Qwen Code 0.15.10 draws its cursor as a blank and U+200B after the text (measured)."""


class Dialog(msgspec.Struct, frozen=True):
    """A screen that waits for keys: a regex, and the keys (may be none) to press one by one."""

    match: str
    keys: tuple[str, ...] = ()


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """How a runtime's screen is read.

    Regexes are searched in the plain text, `^` and `$` match at rows. `prompt_glyphs` begin the
    composer's row. `ghost_sgr` lists renderings of suggestions: text in one of them is no draft
    (`2` = faint, `38;5;246`). `paste_patterns` are plain strings that stand for a folded paste;
    `shortened` begin what stands for the middle of a long text, up to a `]`.
    `ready`: all must match, and none of `not_ready`. `busy`: one is enough. The first matching
    dialog counts.
    """

    prompt_glyphs: tuple[str, ...] = ()
    ghost_sgr: tuple[str, ...] = ()
    paste_patterns: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    not_ready: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    dialogs: tuple[Dialog, ...] = ()


class Composer(msgspec.Struct, frozen=True):
    """The place a person or a paste writes into.

    `none`: no row with a prompt glyph; `empty`: glyph only; `ghost`: only a suggestion;
    `paste_chip`: a folded paste is in it; `text`: somebody's words. `text` is what stands there
    without ghosts and outer blanks, rows joined by LF.
    """

    kind: Literal["none", "empty", "ghost", "text", "paste_chip"]
    text: str = ""


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """What one capture shows; `ready` is false while a dialog is up."""

    composer: Composer
    busy: bool
    ready: bool
    dialog: Dialog | None
    tail: str


class Part(NamedTuple):
    """Where in a row something stands."""

    start: int
    end: int


def read_screen(styled_capture: str, marks: Marks) -> Screen:
    """Read a capture made with its SGR sequences (`TmuxServer.capture(styled=True)`)."""
    capture = Capture(styled_capture)
    text = "\n".join([row.rstrip() for row in capture.texts])
    dialog = next((found for found in marks.dialogs if _is_found(found.match, text)), None)
    is_ready = (
        dialog is None
        and all(_is_found(mark, text) for mark in marks.ready)
        and not any(_is_found(mark, text) for mark in marks.not_ready)
    )
    return Screen(
        composer=_read_composer(capture, marks),
        busy=any(_is_found(mark, text) for mark in marks.busy),
        ready=is_ready,
        dialog=dialog,
        tail=_tail(capture.texts),
    )


def _is_found(expression: str, text: str) -> bool:
    return re.search(expression, text, re.MULTILINE) is not None


def _read_composer(capture: Capture, marks: Marks) -> Composer:
    rows = capture.texts
    begins = (*_FRAME, *marks.prompt_glyphs)
    near = [n for n, row in enumerate(rows) if row.lstrip().startswith(begins)]
    found = [(n, after_glyph(rows[n], marks.prompt_glyphs)) for n in near]
    prompts = {n: after for n, after in found if after is not None}
    if not prompts:
        return Composer("none")
    first = _first_of_block(rows, list(prompts))
    parts = [
        capture.runs(number, part.start, part.end)
        for number, part in enumerate([prompts[first], *_continuation(rows[first + 1 :])], first)
    ]
    return _judge(parts, marks)


def _first_of_block(rows: Sequence[str], prompts: Sequence[int]) -> int:
    """Return the composer's first row: the last one with a glyph.

    Where rules stand around that one it is the first between them: the others are lines of a draft.
    """
    last = prompts[-1]
    above = next((n for n in range(last - 1, -1, -1) if is_rule(rows[n])), None)
    if above is None or not any(is_rule(row) for row in rows[last + 1 :]):
        return last
    return next(n for n in prompts if n > above)


def after_glyph(row: str, glyphs: Sequence[str]) -> Part | None:
    """Return where in a row stands what follows the glyph; None if it does not begin with one."""
    part = _unframed(row)
    inside = row[part.start : part.end]
    text = inside.lstrip()
    glyph = next((glyph for glyph in glyphs if text.startswith(glyph)), None)
    if glyph is None:
        return None
    return Part(part.start + len(inside) - len(text) + len(glyph), part.end)


def _continuation(below: Sequence[str]) -> Sequence[Part]:
    """Return the further rows of the composer.

    Where a horizontal rule closes it they go down to that, blank ones too; else to the first
    blank row.
    """
    for position, row in enumerate(below):
        if is_rule(row):
            return [_unframed(row) for row in below[:position]]
    blank = next((n for n, row in enumerate(below) if not row.strip()), len(below))
    return [Part(0, len(row)) for row in below[:blank]]


def is_rule(row: str) -> bool:
    """Whether a row is a horizontal line, with or without a label in it."""
    start = row.lstrip()[:3]  # a label may stand further right in the rule
    return len(start) == 3 and _RULE_CHARS.issuperset(start)


def _unframed(row: str) -> Part:
    """Return the row without the sides of a box drawn around it."""
    text = row.rstrip()
    start = len(text) - len(text.lstrip())
    if not text.startswith(_FRAME, start):
        return Part(0, len(row))
    end = len(text) - 1 if len(text) > start + 1 and text.endswith(_FRAME) else len(text)
    return Part(start + 1, end)


def _judge(rows: Sequence[Sequence[Run]], marks: Marks) -> Composer:
    ghosts = [ghost for ghost in map(rendering, marks.ghost_sgr) if ghost]
    drafts: list[str] = []
    has_ghost = False
    for row in (_without_cursor(rows[0], ghosts), *rows[1:]):
        draft = ""
        for run in row:
            is_ghost = _is_ghost(run, ghosts)
            has_ghost = has_ghost or (is_ghost and bool(run.text.strip()))
            draft += " " * len(run.text) if is_ghost else run.text
        drafts.append(_UNSEEN_END.sub("", draft).lstrip())
    text = "\n".join(drafts).strip()
    if not text:
        return Composer("ghost" if has_ghost else "empty")
    is_chip = any(pattern in text for pattern in marks.paste_patterns)
    return Composer("paste_chip" if is_chip else "text", text)


def _without_cursor(row: Sequence[Run], ghosts: Sequence[frozenset[str]]) -> Sequence[Run]:
    """Return the row as it would be without the CLI's cursor on the first character of a ghost."""
    first = next((n for n, run in enumerate(row) if not run.text.isspace()), len(row))
    if first + 1 >= len(row) or INVERSE not in row[first].style:
        return row
    blanks, follower = row[first].text[:-1], row[first + 1]
    if (blanks and not blanks.isspace()) or not _is_ghost(follower, ghosts):
        return row
    cursor = Run(row[first].text[-1], follower.style)
    return [*row[:first], Run(blanks, row[first].style), cursor, *row[first + 1 :]]


def _is_ghost(run: Run, ghosts: Sequence[frozenset[str]]) -> bool:
    return any(ghost <= run.style for ghost in ghosts)


def _tail(rows: Sequence[str]) -> str:
    lines = (" ".join(row.split()) for row in reversed(rows))
    last = list(islice((line for line in lines if line), 3))
    if last and DEAD_PANE.fullmatch(last[0]):
        last.pop(0)
    return _TAIL_JOIN.join(reversed(last[:2])).replace('"', "'")[:TAIL_MAX_CHARS]
