"""The file that tells a pane's stub what to become."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from iapeer.core.errors import InvalidInput
from iapeer.sessions import spool, stub

HANDOFF_STEM = ".handoff"
"""How the names of handoff files begin."""


def write_handoff(
    directory: Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    wait_for: Path | None = None,
) -> Path:
    """Write what the stub shall exec and return the file's path (0600, unguessable name).

    The stub looks `argv[0]` up in the PATH of `env`, changes to `cwd` and unlinks the file. With
    `wait_for` it waits for that file, at most `stub.WAIT_S`: the program's own server makes it.

    Raises:
        InvalidInput: no argv, a NUL somewhere, or more than 4 MiB.
        StorageError: it can't be written.
    """
    texts = [*argv, *env, *env.values(), str(cwd)]
    if not argv or any("\0" in text for text in texts):
        raise InvalidInput("a program to start needs an argv, and no text may hold a NUL byte")
    if any(not name or "=" in name for name in env):
        raise InvalidInput("an environment variable needs a name without '='")
    order = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd),
        "wait_for": str(wait_for or ""),
    }
    data = json.dumps(order, ensure_ascii=False).encode("utf-8", "surrogateescape")
    if len(data) > stub.MAX_BYTES:
        raise InvalidInput(f"argv and environment are too long: {len(data)} bytes")
    return spool.write_private(directory, HANDOFF_STEM, data)


def stub_argv(path: Path) -> list[str]:
    """Return the command line that becomes the program `path` tells of."""
    return [sys.executable, "-I", "-S", str(Path(stub.__file__).resolve()), str(path)]


def sweep_handoffs(directory: Path, older_than_s: float = 60.0) -> int:
    """Unlink handoff files no stub came for; return how many."""
    return spool.sweep(directory, HANDOFF_STEM, older_than_s)
