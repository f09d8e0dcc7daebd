"""Terminal text with SGR sequences as characters with the renderings in force."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

INVERSE = "7"
"""The rendering CLIs draw their own cursor with."""

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
