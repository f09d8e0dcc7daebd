"""Everything the tour shows: colours and a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from iapeer.core.text import one_line

from .letters import Row

WIDTH_MAX = 120
WIDTH_PLAIN = 100
"""Columns where there is no terminal to ask."""
_MARGIN = 3
_RULES = " \u00a0─━═╌"
_STATE_STYLES = {"seen": "green", "held": "yellow", "failed": "red", "expired": "red"}


class Frame(msgspec.Struct, frozen=True):
    """A part of an agent's terminal."""

    title: str
    lines: tuple[str, ...]


class View(Protocol):
    """Where frames are shown while things happen."""

    def update(self, frames: Sequence[Frame]) -> None:
        """Show these frames instead of the last ones."""


class _Plain(Console):
    """A console whose reader may go away: the tour then ends in silence and order."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


class Stage:
    """Prints the tour. `live` shows screens while they change; it needs a terminal."""

    def __init__(self, console: Console | None = None, *, live: bool | None = None) -> None:
        self._console = console or _console()
        self._live = self._console.is_terminal if live is None else live
        self._step = 0

    def title(self, text: str) -> None:
        """Print what this is."""
        self._console.print(Text(text, style="bold"))

    def step(self, text: str) -> None:
        """Begin a numbered part."""
        self._step += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._step}", "bold cyan"), "  ", (text, "bold")))

    def command(self, *words: str) -> None:
        """Print a command line as one would type it."""
        line = shlex.join(("iapeer", *words))
        self._inset(Text.assemble(("$ ", "dim"), (line, "cyan")))

    def note(self, text: str) -> None:
        """Print why this matters."""
        self._inset(Text(text, style="dim"))

    def output(self, text: str) -> None:
        """Print what a command said."""
        for line in text.splitlines():
            self._inset(Text(line))

    def event(self, offset_s: float, text: str) -> None:
        """Print what just happened, `offset_s` after the start of the action."""
        self._inset(Text.assemble((f"+{offset_s:.2f} s  ", "dim"), text))

    def answer(self, sender: str, body: str) -> None:
        """Print a message that came for the person."""
        text = Text.assemble((f"{sender}: ", "bold"), (one_line(body, 500), "bold green"))
        self._inset(text)

    def good(self, text: str) -> None:
        """Print a result."""
        self._inset(Text.assemble(("✓ ", "green"), text))

    def bad(self, text: str, tail: Sequence[str] = ()) -> None:
        """Print a failure, and the last lines of a log that may explain it."""
        self._console.print()
        self._console.print(Text(text, style="bold red"))
        if tail:
            self._console.print(Text("the daemon's last lines:"))
            for line in tail:
                self._inset(Text(one_line(line, 500)))

    def frames(self, frames: Sequence[Frame]) -> None:
        """Print terminals, one below the other."""
        self._console.print(self._draw(frames))

    def table(self, table: Sequence[Row]) -> None:
        """Print the steps of all messages."""
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for name in ("message", "from → to", "ms", "state", "how we know"):
            drawn.add_column(name, justify="right" if name == "ms" else "left", overflow="fold")
        for row in table:
            drawn.add_row(
                Text(row.id, style="cyan"),
                Text(row.way, style="bold"),
                Text(row.ms),
                Text(row.state, style=_STATE_STYLES.get(row.state, "")),
                Text(row.how, style="dim"),
            )
        self._inset(drawn)

    @contextmanager
    def watching(self) -> Iterator[View]:
        """Show frames that change in place below what is printed; nothing without a terminal."""
        if not self._live:
            yield _Nothing()
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            yield _Moving(self, live)

    def _draw(self, frames: Sequence[Frame]) -> Group:
        width = self._console.width - 2 * _MARGIN
        return Group(
            *(
                Panel(
                    Text("\n".join(frame.lines), no_wrap=True, overflow="ellipsis"),
                    title=frame.title,
                    title_align="left",
                    border_style="blue",
                    box=box.ROUNDED,
                    width=width,
                )
                for frame in frames
            )
        )

    def _inset(self, what: Text | Table) -> None:
        self._console.print(Padding(what, (0, 0, 0, _MARGIN), expand=False))


class _Moving:
    """A view that replaces what it drew."""

    def __init__(self, stage: Stage, live: Live) -> None:
        self._stage = stage
        self._live = live

    def update(self, frames: Sequence[Frame]) -> None:
        self._live.update(self._stage._draw(frames), refresh=True)  # noqa: SLF001 - one noun


class _Nothing:
    """A view nobody looks at."""

    def update(self, frames: Sequence[Frame]) -> None:
        pass


def cropped(lines: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the last `count` lines of a screen that say something: no blanks, no rules."""
    told = [line.rstrip() for line in lines if line.strip(_RULES)]
    return tuple(told[-count:])


def _console() -> Console:
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    console = _Plain(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_PLAIN
    console.width = min(console.width, WIDTH_MAX)
    return console
