"""The list of checks, and one run through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from iapeer.runtimes.catalog import SHIPPED, Catalog
from iapeer.runtimes.spec import RuntimeSpec

from . import deaths, texts, turns
from .outcome import Check, CheckFailed, NotApplicable
from .report import Report, Row, Verdict
from .simulation import Subject, version_of
from .stage import ANN, BEN, Stage, set_up

LIMIT_S = 300.0
"""A whole run; a good one takes about a minute."""

CHECKS: tuple[Check, ...] = (
    Check("boot", "boots to ready, by messages to two at once", texts.boot, ANN),
    Check("first-message", "reads the message that woke it", texts.first_message, ANN),
    Check("exact-text", "gets a text exactly", texts.exact_text, ANN),
    Check("long-text", "gets a long text exactly", texts.long_text, ANN),
    Check("plain-commands", "takes leading / and ! for text", texts.plain_commands, ANN),
    Check("plain-mention", "attaches no file for @path", texts.plain_mention, ANN),
    Check("seen", "proves that a message was seen", texts.evidence, ANN),
    Check("turn-end", "tells the end of a turn", turns.turn_end, ANN),
    Check("mid-turn", "takes a message in mid-turn", turns.mid_turn, ANN),
    Check("mid-tool", "takes a message during a tool call", turns.mid_tool, ANN),
    Check("draft", "leaves a person's draft alone", turns.draft, ANN),
    Check("tool-call", "calls send_to_peer as itself", turns.tool_call, ANN),
    Check("interrupt", "can be interrupted", turns.interrupt, ANN),
    Check("compact", "can be compacted", turns.compact, ANN),
    Check("killed", "loses no queued message to kill -9", deaths.killed, ANN),
    Check("resume", "goes on with a topic after a stop", deaths.resume, BEN),
    Check("api-error", "tells that its model failed", deaths.api_error, BEN),
    Check("nothing-left", "leaves no process after a stop", deaths.nothing_left, BEN),
)
"""In this order: they share the sessions of two peers."""

_ENDS_ALL = frozenset({"boot", "first-message"})
"""When these fail, nothing else can be said."""


@dataclass(frozen=True)
class Suite:
    """One run; `say` gets a line of progress at a time."""

    subject: Subject
    say: Callable[[str], None]
    limit_s: float = LIMIT_S
    checks: Sequence[Check] = CHECKS

    def run(self) -> Report:
        """Examine the program and return the table; nothing of it is left behind.

        Raises RuntimeUnknown, ManifestError, InvalidInput for a runtime that starts no program,
        ProgramMissing when it is not on PATH.
        """
        began = time.monotonic()
        spec = self.spec()
        program = self.subject.program(spec)
        with set_up(self.subject, spec, self.limit_s) as stage:
            version = version_of(program, stage.environ_of(ANN), spec)
            self.say(f"{spec.title}: {program} {version}")
            rows = self._rows(stage)
        return Report(
            runtime=spec.id,
            title=spec.title,
            program=program,
            version=version,
            tested=spec.tested.versions,
            doors=spec.doors,
            has_model=self.subject.has_model,
            seconds=round(time.monotonic() - began, 1),
            rows=tuple(rows),
        )

    def spec(self) -> RuntimeSpec:
        """Return the runtime's manifest. Raises RuntimeUnknown."""
        return Catalog.load(self.subject.runtimes_dir or SHIPPED).get(self.subject.runtime)

    def _rows(self, stage: Stage) -> list[Row]:
        rows: list[Row] = []
        hopeless = False
        for number, check in enumerate(self.checks, 1):
            self.say(f"[{number:2}/{len(self.checks)}] {check.title} ...")
            if hopeless or time.monotonic() > stage.deadline:
                why = "it never came up" if hopeless else f"{self.limit_s:g} s were over"
                row = _made(check, "fail", f"not run: {why}")
            else:
                row = _row(check, stage)
            hopeless = hopeless or (row.verdict == "fail" and check.name in _ENDS_ALL)
            rows.append(row)
            self.say(f"        {row.verdict}: {row.figure} ({row.seconds:.1f} s)")
        return rows


def _made(check: Check, verdict: Verdict, figure: str = "") -> Row:
    return Row(name=check.name, title=check.title, verdict=verdict, figure=figure)


def _row(check: Check, stage: Stage) -> Row:
    """Do one check in a session that is quiet; make a new one after a failure."""
    began = time.monotonic()
    row = _made(check, "pass")
    try:
        if check.name not in _ENDS_ALL:
            stage.prepare(check.peer)
        row = msgspec.structs.replace(row, figure=check.run(stage))
    except NotApplicable as why:
        row = msgspec.structs.replace(row, verdict="n/a", figure=str(why))
    except (CheckFailed, AssertionError) as error:
        row = msgspec.structs.replace(row, verdict="fail", figure=str(error))
        peer = check.peer
        if isinstance(error, CheckFailed):
            row, peer = msgspec.structs.replace(row, hint=error.hint), error.peer or peer
        row = msgspec.structs.replace(row, screen=stage.tail(peer))
        stage.again(check.peer)
    return msgspec.structs.replace(row, seconds=round(time.monotonic() - began, 1))
