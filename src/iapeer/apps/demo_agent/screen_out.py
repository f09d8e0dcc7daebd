"""Draws the screen: what happened scrolls up, below it stand the queue, composer and footer.

`layout` is pure; `Screen` only knows how to replace the lower block with as few bytes as possible.
Nothing of a message reaches the terminal as a control character.
"""

from __future__ import annotations

import os

from .values import Value

GLYPH = "\u276f"
RULE = "\u2500"
NBSP = "\u00a0"
FAINT = "\x1b[2m"
PLAIN = "\x1b[0m"

COMPOSER_LINES = 8
"""Lines of a draft that are drawn: the first, which holds the glyph, and the last ones."""
QUEUE_LINES = 5
LINE_LIMIT = 2000
"""Characters of one line of text that are looked at when it is drawn."""

_JOINERS = "\u200d\ufe0e\ufe0f"


class View(Value):
    """What the lower block shows."""

    __slots__ = ("busy_s", "draft", "hint", "note", "queue")

    def __init__(
        self, draft: str, *, queue: tuple[str, ...] = (), busy_s: int = -1, hint: str = ""
    ) -> None:
        self.draft = draft
        self.queue = queue
        self.busy_s = busy_s
        self.hint = hint
        self.note = ""


def clean(text: str) -> str:
    """Return text that can be drawn: control characters become a dot, TAB becomes blanks."""
    drawn = text.replace("\t", "    ")
    return "".join(ch if ch.isprintable() or ch in _JOINERS else "\u00b7" for ch in drawn)


def cut(text: str, width: int) -> str:
    """Return as much of a clean text as surely fits: every character above U+10FF counts twice."""
    used = 0
    for at, character in enumerate(text):
        used += 2 if ord(character) >= 0x1100 else 1
        if used > width:
            return text[:at]
    return text


def _wrapped(text: str, width: int) -> list[str]:
    lines = []
    for line in text.split("\n"):
        rest = clean(line[:LINE_LIMIT])
        while True:
            piece = cut(rest, width)
            lines.append(piece)
            rest = rest[len(piece) :]
            if not rest or not piece:
                break
    return lines


def layout(view: View, columns: int) -> tuple[list[str], int]:
    """Return the lower block's lines and the index of the one where the cursor stands."""
    width = max(20, columns) - 4
    rule = RULE * (width + 2)
    lines = []
    if view.busy_s >= 0:
        lines += [f"\u273d Working\u2026 ({view.busy_s}s)", ""]
    for text in view.queue[-QUEUE_LINES:]:
        lines.append(f"  {GLYPH} {cut(clean(text.partition(chr(10))[0][:LINE_LIMIT]), width)}")
    lines.append(rule)
    draft = _wrapped(view.draft, width)
    if len(draft) > COMPOSER_LINES:
        draft = [draft[0], *draft[1 - COMPOSER_LINES :]]
    shown = [f"{GLYPH}{NBSP}{draft[0]}", *(f"  {line}" for line in draft[1:])]
    lines += shown
    cursor = len(lines) - 1
    footer = "demo agent \u00b7 ready"
    if view.busy_s >= 0:
        footer = "demo agent \u00b7 working \u00b7 esc to interrupt"
    note = f" \u00b7 {view.note}" if view.note else ""
    lines += [rule, f"  {cut(footer + note, width)}"]
    return lines, cursor


class Screen:
    """Writes to a terminal; remembers what the lower block looks like now."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._drawn: list[str] = []
        self._cursor = 0
        self._hint = ""
        self._width = 0

    def start(self) -> None:
        """Ask for bracketed paste."""
        self._write("\x1b[?2004h")

    def stop(self) -> None:
        """Leave the terminal as it was found, below what was drawn."""
        down = len(self._drawn) - self._cursor
        self._write("\x1b[?2004l" + "\r\n" * down)
        self._drawn = []

    def say(self, text: str, view: View) -> None:
        """Put text above the block, which is drawn anew.

        Only the first line begins at the left edge: no text can look like composer or footer.
        """
        columns = self._columns()
        lines = _wrapped(text, max(20, columns) - 6)
        self._draw("\r\n    ".join(lines) + "\r\n", view, columns)

    def show(self, view: View) -> None:
        """Draw the block if it changed."""
        lines, cursor = layout(view, self._columns())
        if lines != self._drawn or cursor != self._cursor or view.hint != self._hint:
            self._draw("", view, self._columns())

    def dialog(self, lines: list[str]) -> None:
        """Replace everything drawn by the lines of a question."""
        self._write("\x1b[H\x1b[2J" + "\r\n".join(lines))
        self._drawn, self._cursor = [], 0

    def wipe(self) -> None:
        """Empty the screen."""
        self._write("\x1b[H\x1b[2J")
        self._drawn, self._cursor = [], 0

    def _draw(self, above: str, view: View, columns: int) -> None:
        if columns != self._width:
            # The terminal has wrapped old lines anew: where they are now is anybody's guess.
            if self._width:
                self.wipe()
            self._width = columns
        lines, cursor = layout(view, columns)
        up = f"\x1b[{self._cursor}A" if self._drawn and self._cursor else ""
        back = len(lines) - 1 - cursor
        hint = f"{FAINT}{clean(view.hint)}{PLAIN}\x1b[{len(view.hint)}D" if view.hint else ""
        self._write(
            f"{up}\r\x1b[J{above}"
            + "\r\n".join(lines)
            + (f"\x1b[{back}A" if back else "")
            # The cursor ends behind the draft by drawing that line again: no need to know how
            # wide this terminal thinks each character is.
            + f"\r{lines[cursor]}{hint}"
        )
        self._drawn, self._cursor, self._hint = lines, cursor, view.hint

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or 80
        except OSError:
            return 80

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._fd, data) :]
