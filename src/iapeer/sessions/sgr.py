"""Terminal text with SGR sequences: its characters at once, the renderings in force when asked."""

from __future__ import annotations

import re
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
_STRING = re.compile(r"\x1b[\]PX^_].*?(?:\x07|\x1b\\)", re.DOTALL)
"""Hyperlinks for instance: the only sequences with line feeds or other sequences in them."""
_NOTHING = "\x1b[K"
"""Stands where a string was, so that what was around it does not become a sequence."""
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]*[0-~]|)")
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_PIECE = re.compile(rf"{_SGR.pattern}|{_SEQUENCE.pattern}|[\x0e\x0f]|(?P<run>[^\x1b\x0e\x0f]+)")
_DRAWN = re.compile(r"\x0e([^\x0f]*)\x0f?|\x0f")
_LINE_DRAWING = str.maketrans("lqkxjmtuwvn", "┌─┐│┘└├┤┬┴┼", "\x0e")
"""Letters that are lines while the alternate character set is on (SO ... SI)."""


class Run(NamedTuple):
    """Characters (one at least) in the same renderings: `2`, `38;5;246`, `48;2;1;2;3` ..."""

    text: str
    style: frozenset[str]


class Capture:
    """The rows of a terminal; a rendering goes on in the next row, as tmux's captures do.

    A screen is looked at several times for each delivery, and what is asked of it are the words of
    all rows and the renderings of a few: only those are worked out.
    """

    def __init__(self, text: str) -> None:
        if "\x07" in text or "\x1b\\" in text:
            text = _STRING.sub(_NOTHING, text)
        # From here on each ESC begins a sequence, and each LF ends a row.
        self._rows = text.split("\n")
        shown = _SEQUENCE.sub("", text)
        if "\x0e" in shown or "\x0f" in shown:
            shown = _DRAWN.sub(_draw, shown)
        self.texts: list[str] = shown.split("\n")
        """The characters of each row, trailing blanks included."""

    def runs(self, number: int, start: int = 0, end: int | None = None) -> list[Run]:
        """Return the characters `start` to `end` of a row with their renderings."""
        text = self.texts[number]
        end = len(text) if end is None else end
        active = self._active_before(number)
        style = frozenset(active.values())
        runs: list[Run] = []
        position = 0
        for piece in _PIECE.finditer(self._rows[number]):
            if piece[1] is not None:
                apply(piece[1], active)
                style = frozenset(active.values())
            elif piece["run"]:
                next_position = position + len(piece["run"])
                shown = text[max(position, start) : min(next_position, end)]
                if shown:
                    runs.append(Run(shown, style))
                position = next_position
        return runs

    def _active_before(self, number: int) -> dict[str, str]:
        """Return the renderings (see `apply`) at the beginning of a row."""
        before = "\n".join(self._rows[:number])
        reset = max(before.rfind("\x1b[0m"), before.rfind("\x1b[m"), 0)
        # What a sequence sets does not depend on what was set: of equal ones the last is enough.
        sequences = dict.fromkeys(reversed(_SGR.findall(before, reset)))
        active: dict[str, str] = {}
        for parameters in reversed(sequences):
            apply(parameters, active)
        return active


def plain(text: str) -> str:
    """Return the characters of `text`, its rows without trailing blanks."""
    return "\n".join(row.rstrip() for row in Capture(text).texts)


def rendering(parameters: str) -> frozenset[str]:
    """Return what a sequence of SGR parameters such as `0;2` or `38;5;246` turns on."""
    active: dict[str, str] = {}
    apply(parameters, active)
    return frozenset(active.values())


def _draw(match: re.Match[str]) -> str:
    return (match[1] or "").translate(_LINE_DRAWING)


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
