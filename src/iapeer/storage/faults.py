"""Fault points: where a test may kill this process as a power cut would.

A step that must survive `kill -9` calls `fault("<noun>.<step>")` before it begins. The point
fires when the environment variable named by `core.env.FAULT` holds exactly that name; the process
then gets SIGKILL, so that no `finally`, no buffer and no handler runs. Nothing else reads the
variable, and no point is reached by more than one name.
"""

from __future__ import annotations

import os
import signal

from iapeer.core import env


def fault(point: str) -> None:
    """Kill this process here if `point` is the fault that was asked for; else do nothing."""
    if os.environ.get(env.FAULT) == point:
        os.kill(os.getpid(), signal.SIGKILL)
