"""The canary: a recorder beside each tmux server, which outlives the daemon and tells its death.

    canary.sh  the recorder, and what the server itself runs when its program ends
    script     that file with this root's paths on top of it, and how both are called
    marks      the pid files in which a recorder and its client are found again
    canaries   ensure one, silence one, stand in for one
    keeper     the regular look: re-arm lost ones, keep the logs in their bounds

`exits.log` has two writers, and each fact one: the server's own hook writes `session-exit`, the
recorder writes `server-exit`. The daemon writes only what neither of them could.
"""

from __future__ import annotations

from .canaries import Canaries, CanaryState, Watched
from .script import exit_hooks

__all__ = ["Canaries", "CanaryState", "Watched", "exit_hooks"]
