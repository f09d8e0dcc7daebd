"""The only module that prints: data on stdout, everything said about it on stderr.

Peers' texts are data: a control character in a name, a description or a reason is shown as an
escape and never reaches the terminal. A reader that goes away (`iapeer list | head -1`) does not
stop a verb: the rest is dropped, what the verb does is done, and its exit status stays true.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TextIO

_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}
"""C0 (but the line feed), DEL and C1, as one would write them in a string."""
_IN_ROW = {**_VISIBLE, 0x0A: "\\x0a"}
_JSON_VISIBLE = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""JSON escapes C0 by itself; DEL and C1 are legal in it and obeyed by terminals."""


def say(text: str) -> None:
    """Print one line (or several) of data on stdout."""
    _write(sys.stdout, text.translate(_VISIBLE))


def row(*cells: str) -> None:
    """Print one line of cells with a tab between them, for programs that read it."""
    _write(sys.stdout, "\t".join(cell.translate(_IN_ROW) for cell in cells))


def warn(text: str) -> None:
    """Print one line (or several) for the human on stderr."""
    _write(sys.stderr, text.translate(_VISIBLE))


def fail(verb: str, message: str, hint: str = "") -> None:
    """Print an error: `iapeer <verb>: <message>` and, when there is one, a hint line."""
    name = f"iapeer {verb}" if verb else "iapeer"
    warn(f"{name}: {message}" + (f"\nhint: {hint}" if hint else ""))


def emit(value: Any) -> None:
    """Print a value as JSON on stdout."""
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False)
    _write(sys.stdout, text.translate(_JSON_VISIBLE))


def is_rich() -> bool:
    """Tell whether stdout is a terminal that may be drawn on."""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table on a terminal; call it only when `is_rich()`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        # Text, not str: a description may hold what rich takes for markup.
        drawn.add_row(*(Text(cell.translate(_VISIBLE)) for cell in row))
    Console(file=sys.stdout).print(drawn)


def prepare() -> None:
    """Make any text printable: a character the terminal's encoding lacks becomes `?`."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def flush() -> None:
    """Hand what is printed to the reader, if there still is one.

    Raises StorageError when it can't be written for another reason (a full disk).
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _try(stream, stream.flush)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # None: started with that descriptor closed
        _try(stream, lambda: stream.write(text + "\n"))


def _try(stream: TextIO, write: Callable[[], object]) -> None:
    try:
        write()
    except BrokenPipeError:
        _drop(stream)
    except OSError as error:
        # Dropped as well: else the interpreter tries again at its end, with a traceback.
        _drop(stream)
        from iapeer.core.errors import StorageError

        raise StorageError(f"can't write the output: {error.strerror}") from None


def _drop(stream: TextIO) -> None:
    """Point a stream whose reader has gone at nothing, so that no later write fails."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
