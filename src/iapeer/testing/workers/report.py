"""The verdict as text for a terminal and as a Markdown page; no names of machines or people."""

from __future__ import annotations

from collections.abc import Iterator

from iapeer.testing.chaos.report import machine, table

from .plan import SETTINGS
from .runner import Result

SHOWN = 40
"""Violations that are written out; the rest is counted."""


def verdict(result: Result) -> str:
    """Return the result in a few lines."""
    lines = [f"{name}: {value}" for name, value in result.figures.items()]
    lines += [f"the daemon {what}" for what in result.misdeeds]
    lines += [f"VIOLATION {v.kind} {v.subject}: {v.detail}" for v in result.violations[:SHOWN]]
    lines.append(summary(result))
    return "\n".join(lines)


def summary(result: Result) -> str:
    """Return one line: the seed, whether all was done, and how many promises were broken."""
    whole = "complete" if result.complete else "cut short by the time limit"
    return f"seed {result.options.seed}: {whole}, {len(result.violations)} violations"


def passed(result: Result) -> bool:
    """Whether every task was done as promised, within the time."""
    return result.complete and not result.violations and not result.misdeeds


def markdown(result: Result) -> str:
    """Return the page for `docs/worker-report.md`."""
    return "\n".join(_page(result)) + "\n"


def _page(result: Result) -> Iterator[str]:
    options = result.options
    yield "# Worker report"
    yield ""
    yield "Written by `iapeer.testing.workers`; what is checked stands in its `checker` module."
    yield ""
    yield f"**{summary(result)}.**"
    yield ""
    words = f"--tasks {options.tasks} --kills {options.kills}"
    words += f" --worker-kills {options.worker_kills} --seed {options.seed}"
    yield from ("```sh", f'make test-workers ARGS="{words}"', "```", "")
    yield from table("figure", "value", result.figures.items())
    yield from table("setting", "value", SETTINGS.items())
    yield from table("machine", "", machine().items())
    if result.misdeeds:
        yield from table("the daemon", "", [(what, "") for what in result.misdeeds])
    if result.violations:
        rows = [(v.kind, f"{v.subject}: {v.detail}") for v in result.violations[:SHOWN]]
        yield from table("violation", "what speaks for it", rows)
