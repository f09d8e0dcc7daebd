"""The first screen reader, kept as it was: a cell for each character, nothing put off.

Slow and plain on purpose. `iapeer.sessions.screen` must say the same about every capture, which
`test_screen_reference.py` examines; change this module only where a screen is to be read otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from iapeer.sessions.screen import TAIL_MAX_CHARS, Composer, Marks, Screen

INVERSE = "7"
_TAIL_JOIN = " ⏎ "
DEAD_PANE = re.compile(r"Pane is dead( \(.*\)?)?")
"""The row tmux itself writes into a pane whose program has ended."""
_RULE_CHARS = frozenset("─━═╌╍┄┅┈┉╭╮╰╯┌┐└┘├┤▀▄▔▁▂")
_FRAME = "│┃║"
_UNSEEN_END = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]+\Z")
"""Qwen Code 0.15.10 draws its cursor as a blank and U+200B after the text (measured)."""
_FOREGROUND, _BACKGROUND, _UNDERLINE_COLOUR = "38", "48", "58"
_ENDS = {
    "22": ("1", "2"),
    "23": ("3",),
    "24": ("4", "21"),
    "25": ("5", "6"),
    "27": ("7",),
    "28": ("8",),
    "29": ("9",),
    "55": ("53",),
    "39": (_FOREGROUND,),
    "49": (_BACKGROUND,),
    "59": (_UNDERLINE_COLOUR,),
}
_TOKEN = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]*)m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # any other control sequence
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"  # strings, hyperlinks for instance
    r"|\x1b[ -/]*[0-~]"
    r"|(?P<shift>[\x0e\x0f])"
    r"|(?P<char>[^\x1b])"
    r"|\x1b",
    re.DOTALL,
)
_LINE_DRAWING = str.maketrans("lqkxjmtuwvn", "┌─┐│┘└├┤┬┴┼")
"""Letters that are lines while the alternate character set is on (SO ... SI)."""


class Cell(NamedTuple):
    """One character and the renderings in force: `2`, `38;5;246`, `48;2;1;2;3` ..."""

    char: str
    style: frozenset[str]


def styled_rows(text: str) -> list[list[Cell]]:
    """Return the rows of `text`; a rendering goes on in the next row, as tmux's captures do."""
    rows: list[list[Cell]] = [[]]
    active: dict[str, str] = {}
    style: frozenset[str] = frozenset()
    is_drawing = False
    for token in _TOKEN.finditer(text):
        char = token["char"]
        if char == "\n":
            rows.append([])
        elif char is not None:
            rows[-1].append(Cell(char.translate(_LINE_DRAWING) if is_drawing else char, style))
        elif token["sgr"] is not None:
            apply(token["sgr"], active)
            style = frozenset(active.values())
        elif token["shift"]:
            is_drawing = token["shift"] == "\x0e"
    return rows


def rendering(parameters: str) -> frozenset[str]:
    """Return what a sequence of SGR parameters such as `0;2` or `38;5;246` turns on."""
    active: dict[str, str] = {}
    apply(parameters, active)
    return frozenset(active.values())


def plain(row: Iterable[Cell]) -> str:
    """Return the characters of a row without trailing blanks."""
    return "".join(cell.char for cell in row).rstrip()


def apply(parameters: str, active: dict[str, str]) -> None:
    """Change `active` (slot to rendering) as the terminal would; unknown parameters do nothing."""
    rest = parameters.split(";")
    while rest:
        head = rest.pop(0)
        code = head.split(":")[0].lstrip("0")
        if code in (_FOREGROUND, _BACKGROUND, _UNDERLINE_COLOUR):
            colour = _colour(head, rest)
            if colour:
                active[code] = f"{code};{colour}"
        elif code == "":
            active.clear()
        elif code == "4" and head.endswith(":0"):
            active.pop("4", None)
        elif code in _ENDS:
            for slot in _ENDS[code]:
                active.pop(slot, None)
        elif code.isdigit():
            active[_slot(int(code))] = code


def _slot(code: int) -> str:
    """Return which rendering `code` replaces: colours replace each other, the rest nothing."""
    if 30 <= code <= 37 or 90 <= code <= 97:
        return _FOREGROUND
    if 40 <= code <= 47 or 100 <= code <= 107:
        return _BACKGROUND
    return str(code)


def _colour(head: str, rest: list[str]) -> str:
    """Take the parameters of a long colour; both `38;5;n` and `38:5:n` are in use."""
    inner = head.split(":")[1:]
    if inner:
        kind, values = inner[0], [value for value in inner[1:] if value]
        count = 1 if kind == "5" else 3
        values = values[-count:]
    else:
        kind = rest.pop(0) if rest else ""
        count = {"5": 1, "2": 3}.get(kind, 0)
        values, rest[:count] = rest[:count], []
    is_whole = kind in ("2", "5") and len(values) == count
    return ";".join((kind, *(value.lstrip("0") or "0" for value in values))) if is_whole else ""


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
