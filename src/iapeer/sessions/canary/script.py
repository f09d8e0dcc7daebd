"""The recorder's script as it lies below the root, and the ways to call it.

It is copied there because it must work when the package has been moved or replaced: tmux servers
live for weeks, and their hook names a path.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from iapeer.core.logfmt import format_line
from iapeer.sessions.tmux.command import line
from iapeer.sessions.tmux.config import shell_word
from iapeer.storage import atomic
from iapeer.storage.paths import Paths

SHELL = "/bin/sh"
_BODY = Path(__file__).with_name("canary.sh")


def install(paths: Paths, tmux: str) -> Path:
    """Write the script for this root unless that very text is there; return its path.

    It is replaced, never changed: shells that run the older text keep it.

    Raises StorageError, OSError.
    """
    text = _preamble(paths, tmux) + _BODY.read_text(encoding="utf-8")
    path = paths.canary_script
    try:
        if path.read_text(encoding="utf-8") == text:
            return path
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    atomic.ensure_private_dir(path.parent)
    atomic.write_text(path, text)
    return path


def exit_hooks(paths: Paths, identity: str, session_id: str) -> Mapping[str, str]:
    """Return the hooks to preset in a server: its `pane-died` writes the record of the exit.

    tmux expands only the formats of the end.
    """
    words = [SHELL, str(paths.canary_script), "exit", identity, session_id]
    command = " ".join(shell_word(word) for word in words)
    facts = ("pane_id", "session_name", "pane_dead_status", "pane_dead_signal")
    formats = " ".join(f"'#{{{name}}}'" for name in facts)
    return {"pane-died": line([["run-shell", "-b", f"exec {command} {formats}"]])}


def channel(identity: str) -> str:
    """Return the tmux channel a recorder waits on; a signal there wakes it."""
    return f"iap-canary-{identity}"


def argv(paths: Paths, mode: str, words: Sequence[str]) -> list[str]:
    """Return the command line of the script in one of its modes."""
    return [SHELL, str(paths.canary_script), mode, *words]


def _preamble(paths: Paths, tmux: str) -> str:
    deaths = str(paths.server_deaths)
    shown = format_line((("", deaths),))[1:].removesuffix('"')
    values = {
        "root": str(paths.root),
        "run": str(paths.canaries),
        "log": str(paths.exits_log),
        "deaths": deaths,
        "shown": shown,
        "python": sys.executable,
        "tmux": tmux,
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
