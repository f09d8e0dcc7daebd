"""The conformance suite: does an agent CLI do what iapeer counts on, as its manifest says it?

    iapeer dev conformance claude

starts a daemon of its own on a throw-away root, in the throw-away HOME of a made-up person, with
the model simulator in place of a model, makes two peers of the runtime and checks one capability
after the other with real messages. No account, no internet, nothing of the caller's configuration.
The result is a table: one row per capability with its verdict, a figure and, where it failed, a
hint. A check that does not apply to a runtime (it has no model, its manifest has no such key) says
so and why.

`Suite` is the same for programs: `Suite(Subject(runtime="claude", path=...)).run()`.
"""

from __future__ import annotations

from .report import Report, Row, Verdict
from .simulation import ProgramMissing, Subject
from .suite import CHECKS, Suite

__all__ = ["CHECKS", "ProgramMissing", "Report", "Row", "Subject", "Suite", "Verdict"]
