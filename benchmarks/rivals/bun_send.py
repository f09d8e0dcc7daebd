"""What starting costs: the same send by `iapeer send` and by a binary that bun compiled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import Spread, spread
from benchmarks.house import BOX, OPERATOR, house, run_time
from benchmarks.installed import installed
from benchmarks.rivals.install import from_npm
from benchmarks.rivals.measure import body_of, clean_environ, scratch
from benchmarks.rivals.readings import NotRun

VERSION = "1.4.5"
_COMPILE_S = 120.0


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One way to send, as a whole process, in ms; `reason` where there is none."""

    what: str
    spread: Spread | None = None
    mib: float | None = None
    """Size of the program's one file, where it is one file."""
    reason: str = ""


def starts(times: int) -> list[Start]:
    """Measure all ways by turns: every round runs each of them once, in turning order."""
    with installed() as place, house() as daemon, scratch() as folder:
        words = [BOX, body_of("start")]
        sender = f"api-{OPERATOR}"
        ways = {
            "`python -c pass`": [place.python, "-c", "pass"],
            "`iapeer send`": [place.program, "send", *words, "--from", sender],
        }
        reason, size = "", None
        compiled = f"a send of {_lines()} lines, `bun build --compile` {VERSION}"
        try:
            binary = _compile(folder)
        except NotRun as error:
            reason = str(error)
        else:
            ways["`true`, a process that does nothing"] = ["/bin/true"]
            ways[compiled] = [str(binary), daemon.socket, BOX, sender, words[1]]
            size = binary.stat().st_size / 2**20
        # Where a process runs decides whose peer it is; this folder is nobody's.
        samples = _by_turns(ways, daemon.environ, daemon.base, times)
    found = [
        Start(what=what, spread=spread(ones, 1000), mib=size if what == compiled else None)
        for what, ones in samples.items()
    ]
    return [*found, Start(what=compiled, reason=reason)] if reason else found


def _by_turns(
    ways: Mapping[str, Sequence[str]], environ: dict[str, str], folder: Path, times: int
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {what: [] for what in ways}
    order = list(ways)
    here = Path.cwd()
    os.chdir(folder)
    try:
        for turn in range(times + 2):
            for what in order:
                taken = run_time(list(ways[what]), environ)
                if turn >= 2:
                    samples[what].append(taken)
            order.append(order.pop(0))
    finally:
        os.chdir(here)
    return samples


def _compile(folder: Path) -> Path:
    """Compile `send.ts`. Raises NotRun."""
    installed = from_npm("bun")
    found = sorted(installed.glob("node_modules/@oven/bun-*/bin/bun"))
    if not found:
        raise NotRun("there is no bun for this platform")
    binary = folder / "send"
    source = Path(__file__).with_name("send.ts")
    environ = clean_environ(folder)
    argv = [str(found[0]), "build", "--compile", "--minify", str(source), "--outfile", str(binary)]
    try:
        done = subprocess.run(
            argv, env=environ, cwd=folder, capture_output=True, timeout=_COMPILE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotRun(f"bun did not finish within {_COMPILE_S:g} s") from error
    if done.returncode:
        raise NotRun(f"bun could not compile: {done.stderr.decode(errors='replace')[-300:]}")
    return binary


def _lines() -> int:
    source = Path(__file__).with_name("send.ts").read_text(encoding="utf-8")
    return sum(not line.startswith("//") for line in source.splitlines())
