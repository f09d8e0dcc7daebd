"""Pure reader of a captured pane: composer, busy, ready, dialog, tail.

Rows and marks only; nothing here knows a runtime. What a screen says is a hint for pressing keys,
never the proof that a message arrived.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from iapeer.sessions.sgr import INVERSE, Cell, plain, rendering, styled_rows

TAIL_MAX_CHARS = 160
"""Longest `Screen.tail` (contract: what a failed launch shows of its pane)."""

_TAIL_JOIN = " ⏎ "
DEAD_PANE = re.compile(r"Pane is dead( \(.*\)?)?")
"""The row tmux itself writes into a pane whose program has ended."""
_RULE_CHARS = frozenset("─━═╌╍┄┅┈┉╭╮╰╯┌┐└┘├┤▀▄▔▁▂")
_FRAME = "│┃║"
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
    (`2` = faint, `38;5;246`). `paste_patterns` are plain strings that stand for a folded paste.
    `ready`: all must match, and none of `not_ready`. `busy`: one is enough. The first matching
    dialog counts.
    """

    prompt_glyphs: tuple[str, ...] = ()
    ghost_sgr: tuple[str, ...] = ()
    paste_patterns: tuple[str, ...] = ()
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


def read_screen(styled_capture: str, marks: Marks) -> Screen:
    """Read a capture made with its SGR sequences (`TmuxServer.capture(styled=True)`)."""
    rows = styled_rows(styled_capture)
    texts = [plain(row) for row in rows]
    text = "\n".join(texts)
    dialog = next((found for found in marks.dialogs if _is_found(found.match, text)), None)
    is_ready = (
        dialog is None
        and all(_is_found(mark, text) for mark in marks.ready)
        and not any(_is_found(mark, text) for mark in marks.not_ready)
    )
    return Screen(
        composer=_read_composer(rows, marks),
        busy=any(_is_found(mark, text) for mark in marks.busy),
        ready=is_ready,
        dialog=dialog,
        tail=_tail(texts),
    )


def _is_found(expression: str, text: str) -> bool:
    return re.search(expression, text, re.MULTILINE) is not None


def _read_composer(rows: Sequence[Sequence[Cell]], marks: Marks) -> Composer:
    found = ((n, _after_glyph(row, marks.prompt_glyphs)) for n, row in enumerate(rows))
    prompts = {n: after for n, after in found if after is not None}
    if not prompts:
        return Composer("none")
    position = _first_of_block(rows, list(prompts))
    return _judge([prompts[position], *_continuation(rows[position + 1 :])], marks)


def _first_of_block(rows: Sequence[Sequence[Cell]], prompts: Sequence[int]) -> int:
    """Return the composer's first row: the last one with a glyph.

    Where rules stand around that one it is the first between them: the others are lines of a draft.
    """
    last = prompts[-1]
    above = next((n for n in range(last - 1, -1, -1) if _is_rule(rows[n])), None)
    if above is None or not any(_is_rule(row) for row in rows[last + 1 :]):
        return last
    return next(n for n in prompts if n > above)


def _after_glyph(row: Sequence[Cell], glyphs: Sequence[str]) -> Sequence[Cell] | None:
    """Return what follows the prompt glyph, None if the row does not begin with one."""
    cells = _unframed(row)
    start = next((n for n, cell in enumerate(cells) if not cell.char.isspace()), len(cells))
    text = "".join(cell.char for cell in cells[start:])
    glyph = next((glyph for glyph in glyphs if text.startswith(glyph)), None)
    return None if glyph is None else cells[start + len(glyph) :]


def _continuation(below: Sequence[Sequence[Cell]]) -> Sequence[Sequence[Cell]]:
    """Return the further rows of the composer.

    Where a horizontal rule closes it they go down to that, blank ones too; else to the first
    blank row.
    """
    for position, row in enumerate(below):
        if _is_rule(row):
            return [_unframed(row) for row in below[:position]]
    blank = next((n for n, row in enumerate(below) if not plain(row).strip()), len(below))
    return below[:blank]


def _is_rule(row: Sequence[Cell]) -> bool:
    start = plain(row).strip()[:3]  # a label may stand further right in the rule
    return len(start) == 3 and set(start) <= _RULE_CHARS


def _unframed(row: Sequence[Cell]) -> Sequence[Cell]:
    """Return the row without the sides of a box drawn around it."""
    text = plain(row)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] not in tuple(_FRAME):
        return row
    end = len(text) - 1 if len(text) > start + 1 and text[-1] in _FRAME else len(text)
    return row[start + 1 : end]


def _judge(rows: Sequence[Sequence[Cell]], marks: Marks) -> Composer:
    ghosts = [rendering(parameters) for parameters in marks.ghost_sgr]
    first = next((cell for cell in rows[0] if not cell.char.isspace()), None)
    drafts: list[str] = []
    has_ghost = False
    for row in rows:
        draft = ""
        for position, cell in enumerate(row):
            is_ghost = _is_ghost(cell, ghosts) or (
                # CLIs draw their cursor over the first character of a suggestion.
                cell is first
                and INVERSE in cell.style
                and position + 1 < len(row)
                and _is_ghost(row[position + 1], ghosts)
            )
            has_ghost = has_ghost or (is_ghost and not cell.char.isspace())
            draft += " " if is_ghost else cell.char
        drafts.append(_UNSEEN_END.sub("", draft).lstrip())
    text = "\n".join(drafts).strip()
    if not text:
        return Composer("ghost" if has_ghost else "empty")
    is_chip = any(pattern in text for pattern in marks.paste_patterns)
    return Composer("paste_chip" if is_chip else "text", text)


def _is_ghost(cell: Cell, ghosts: Sequence[frozenset[str]]) -> bool:
    return any(ghost and ghost <= cell.style for ghost in ghosts)


def _tail(texts: Sequence[str]) -> str:
    lines = [" ".join(text.split()) for text in texts]
    lines = [text for text in lines if text]
    if lines and DEAD_PANE.fullmatch(lines[-1]):
        lines.pop()
    return _TAIL_JOIN.join(lines[-2:]).replace('"', "'")[:TAIL_MAX_CHARS]
