"""tmux commands as values: quoting for both ways in, checks of names, meaning of refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from iapeer.core.errors import SessionGone, TmuxError

Command = Sequence[str]
"""One tmux command: its name and arguments, unquoted."""

SOCKET_PATH_MAX_BYTES = 107
"""Longest path a unix socket can be bound to on Linux (`sun_path` less the final NUL)."""

COMMAND_MAX_BYTES = 12_000
"""Longest request in its quoted form; a tmux client may send 16 kB in one message."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:=@%+,-]+")
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_MARKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+=-]{0,199}")
_OPTION = re.compile(r"@[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[!-~]{1,32}")
_LITERAL = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./:=@%+,-#{}()[]<>|&*?!^;'"
)
_GONE = (
    "no server running",
    "error connecting to",
    "server exited",
    "lost server",
    "can't find session",
    "can't find pane",
    "can't find window",
    "no current target",
)


def quote(argument: str) -> str:
    """Return `argument` as one word of tmux's own command language.

    Everything but harmless ASCII becomes a three-digit octal escape inside double quotes, so
    no `$`, `~`, quote, backslash, newline or byte of UTF-8 can be read as syntax.

    Raises:
        TmuxError: for a NUL, which tmux can't hold.
    """
    if _PLAIN.fullmatch(argument):
        return argument
    data = argument.encode("utf-8", "surrogateescape")
    if 0 in data:
        raise TmuxError("a tmux argument can't hold a NUL byte")
    return '"' + "".join(chr(b) if b in _LITERAL else f"\\{b:03o}" for b in data) + '"'


def line(commands: Sequence[Command]) -> str:
    """Return `commands` as one line of tmux's command language: run in order, stop at an error."""
    return " ; ".join(" ".join(quote(argument) for argument in command) for command in commands)


def arguments(commands: Sequence[Command]) -> list[str]:
    """Return `commands` as arguments of the tmux program.

    There a final `;` of any argument separates commands unless a backslash precedes it.
    """
    out: list[str] = []
    for position, command in enumerate(commands):
        if position:
            out.append(";")
        out.extend(_escape_separator(argument) for argument in command)
    return out


def check_length(encoded: str) -> None:
    """Refuse a request that tmux would cut or reject; `encoded` is its quoted form."""
    if len(encoded.encode("utf-8", "surrogateescape")) > COMMAND_MAX_BYTES:
        raise TmuxError(
            "a tmux command is too long",
            hint=f"at most {COMMAND_MAX_BYTES} bytes after quoting; send data through a buffer",
        )


def check_socket(path: Path) -> None:
    """Refuse a socket path the kernel can't bind, before tmux fails with less clear words."""
    size = len(str(path).encode("utf-8", "surrogateescape"))
    if size > SOCKET_PATH_MAX_BYTES:
        raise TmuxError(
            f"tmux socket path is {size} bytes long, at most {SOCKET_PATH_MAX_BYTES} fit: {path}",
            hint="choose a shorter socket directory (IAPEER_SOCK_DIR)",
            code="socket_path",
        )


def check_session(name: str) -> str:
    """Return `name` if tmux keeps it as it is; `.` and `:` would be rewritten."""
    return _checked(_SESSION, name, "session name")


def check_marker(marker: str) -> str:
    """Return `marker` if it is safe inside a tmux format."""
    return _checked(_MARKER, marker, "marker")


def check_option(name: str) -> str:
    """Return `name` if it is a user option (`@name`)."""
    return _checked(_OPTION, name, "user option")


def check_key(name: str) -> str:
    """Return `name` if it can be one key: printable ASCII without blanks, 32 at most."""
    return _checked(_KEY, name, "key")


def pane(session: str) -> str:
    """Return the exact target of the session's pane; a bare name would match by prefix."""
    return f"={session}:"


def refusal(message: str) -> TmuxError:
    """Return the error for what tmux said: `SessionGone` when the thing asked is not there."""
    text = " ".join(message.split())[:300] or "no message"
    if any(sign in text for sign in _GONE):
        return SessionGone(f"tmux: {text}")
    return TmuxError(f"tmux refused: {text}")


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise TmuxError(f"not a usable tmux {what}: {value[:80]!r}")
    return value


def _escape_separator(argument: str) -> str:
    return f"{argument[:-1]}\\;" if argument.endswith(";") else argument


def attach_argv(
    socket: Path, session: str, *, binary: str = "tmux", read_only: bool = False
) -> list[str]:
    """Return the command line a person attaches with; `TMUX` must not be in its environment.

    It never starts a server and never reads the person's own configuration.
    """
    argv = [binary, "-N", "-S", str(socket), "attach-session"]
    if read_only:
        argv.append("-r")
    return [*argv, "-t", f"={check_session(session)}"]
