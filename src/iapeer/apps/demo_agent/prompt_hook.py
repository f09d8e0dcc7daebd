"""Runs the prompt hook: any program, given one JSON object on stdin, with a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable

HOOK_S = 5.0
"""A hook that takes longer is killed and the turn goes on."""


def run_hook(argv: tuple[str, ...], fields: dict[str, str], done: Callable[[str], None]) -> None:
    """Run the hook beside the screen; a thread calls `done` once, with its error or nothing."""

    def work() -> None:
        done(_run(argv, fields))

    threading.Thread(target=work, name="hook", daemon=True).start()


def _run(argv: tuple[str, ...], fields: dict[str, str]) -> str:
    payload = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        # A session of its own: a hook that is killed takes its children along, none holds the pipe.
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"prompt hook: {error}"
    try:
        process.communicate(payload, timeout=HOOK_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"prompt hook: killed after {HOOK_S:.0f} s"
    return f"prompt hook: exit status {process.returncode}" if process.returncode else ""
