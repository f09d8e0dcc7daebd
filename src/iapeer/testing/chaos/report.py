"""The verdict as text for a terminal and as a Markdown page; no names of machines or people."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator

import psutil

from iapeer.core.settings import make_settings

from .options import SETTINGS
from .runner import Result

GUARDS = (
    "pair_bucket",
    "pair_refill",
    "host_bucket",
    "host_refill",
    "queue_limit",
    "repeat_limit",
    "repeat_window_s",
    "depth_limit",
    "depth_interval_s",
)
"""Settings that refuse messages; a figure without them says little."""
SHOWN = 40
"""Violations that are written out; the rest is counted."""


def verdict(result: Result) -> str:
    """Return the result in a few lines."""
    lines = [f"{name}: {value}" for name, value in result.figures.items()]
    lines += [f"calls {name}: {count}" for name, count in sorted(result.outcomes.items())]
    lines += [f"messages {name}: {count}" for name, count in sorted(result.states.items())]
    lines += [f"deed {k} {o}: {count}" for (k, o), count in sorted(result.deeds.items())]
    lines += [f"the daemon {what}" for what in result.misdeeds]
    lines += [f"VIOLATION {v.kind} {v.subject}: {v.detail}" for v in result.violations[:SHOWN]]
    lines.append(summary(result))
    return "\n".join(lines)


def summary(result: Result) -> str:
    """Return one line: the seed, whether all was done, and how many lies were found."""
    whole = "complete" if result.complete else "cut short by the time limit"
    rest = "" if result.rested else ", did not come to rest"
    return f"seed {result.options.seed}: {whole}{rest}, {len(result.violations)} violations"


def passed(result: Result) -> bool:
    """Whether nothing was broken and everything came to rest."""
    return not result.violations and not result.misdeeds and result.rested


def markdown(result: Result) -> str:
    """Return the page for `docs/kill-report.md`."""
    return "\n".join(_page(result)) + "\n"


def command(result: Result) -> str:
    """Return the command line that repeats the run."""
    options = result.options
    return (
        'make test-kill ARGS="'
        f'--messages {options.messages} --kills {options.kills} --seed {options.seed}"'
    )


def _page(result: Result) -> Iterator[str]:
    yield "# Kill report"
    yield ""
    yield "Written by `iapeer.testing.chaos`; what is checked stands in its `checker` module."
    yield ""
    yield f"**{summary(result)}.**"
    yield ""
    yield from ("```sh", command(result), "```", "")
    yield from table("figure", "value", result.figures.items())
    yield from table("calls", "count", sorted(result.outcomes.items()))
    yield from table("messages at the end", "count", sorted(result.states.items()))
    deeds = [(f"{kind}, {outcome}", n) for (kind, outcome), n in sorted(result.deeds.items())]
    yield from table("what was done", "count", deeds)
    yield from table("setting", "value", SETTINGS.items())
    yield from table("guard", "value", _guards().items())
    yield from table("machine", "", machine().items())
    if result.misdeeds:
        yield from table("the daemon", "", [(what, "") for what in result.misdeeds])
    if result.violations:
        rows = [(v.kind, f"{v.subject}: {v.detail}") for v in result.violations[:SHOWN]]
        yield from table("violation", "what speaks for it", rows)


def _guards() -> dict[str, object]:
    """Return the limits of the entrance that the run was under."""
    merged = make_settings({"HOME": "/nonexistent"}, SETTINGS)
    return {name: getattr(merged, name) for name in GUARDS}


def table(left: str, right: str, rows: Iterable[tuple[object, object]]) -> Iterator[str]:
    """Return the lines of a Markdown table of two columns."""
    yield f"| {left} | {right} |"
    yield "| --- | --- |"
    for name, value in rows:
        yield f"| {str(name).replace('|', '/')} | {str(value).replace('|', '/')} |"
    yield ""


def machine() -> dict[str, str]:
    """Return what matters about the machine and names nobody."""
    tmux = subprocess.run(["tmux", "-V"], capture_output=True, encoding="utf-8", check=False)
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "processor": f"{os.cpu_count()} x {platform.machine()}",
        "memory": f"{psutil.virtual_memory().total / (1 << 30):.0f} GiB",
        "python": platform.python_version(),
        "tmux": tmux.stdout.strip() or "unknown",
    }
