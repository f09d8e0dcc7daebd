"""Measure other routers beside iapeer: `python -m benchmarks.rivals [--write] [--only NAME]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.machine import describe
from benchmarks.rivals import agent_mail, agent_relay, bun_send, ours, page, relay_broker
from benchmarks.rivals.readings import Column, NotRun, Plan, Reading, Rival, column_of
from benchmarks.wire import RequestFailed

RIVALS: tuple[Rival, ...] = (
    *ours.RIVALS,
    agent_relay.RIVAL,
    relay_broker.RIVAL,
    agent_mail.RIVAL,
)
_QUICK = Plan(samples=10, single=20, each=4)
_STARTS = 40


def main(argv: Sequence[str]) -> int:
    """Measure and print; a system that can't be run is a line in the result, not an error."""
    options = _options(argv)
    # Servers are ended by `finally`: an ordinary end of this process must run them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [rival for rival in RIVALS if options.only in rival.name]
    # Installs are not part of the run: they load the machine.
    ready = {rival.name: _prepared(rival) for rival in chosen}
    machine = describe()
    began = time.monotonic()
    loads: list[float] = []
    columns = _measure(chosen, ready, loads, quick=options.quick)
    starts = [] if options.only else _starts(8 if options.quick else _STARTS)
    loads.append(os.getloadavg()[0])
    run = page.Run(time.monotonic() - began, loads)
    part = page.page_part(machine, columns, starts, run)
    sys.stdout.write(f"{part}\n")
    if options.write:
        report.write_page(part, page.PAGE)
    return 0


def _starts(times: int) -> list[bun_send.Start]:
    try:
        return bun_send.starts(times)
    except RuntimeError as error:
        return [bun_send.Start(what="`iapeer send`", reason=" ".join(str(error).split())[:300])]


def _prepared(rival: Rival) -> Path | str:
    """Return where a system is installed, or why it is not."""
    try:
        return rival.prepare()
    except NotRun as error:
        return str(error)


def _measure(
    rivals: Sequence[Rival], ready: dict[str, Path | str], loads: list[float], *, quick: bool
) -> list[Column]:
    """Go round: every system once in each round, one at a time; `loads` gets one a round."""
    readings: dict[str, list[Reading]] = {rival.name: [] for rival in rivals}
    reasons = {name: where for name, where in ready.items() if isinstance(where, str)}
    rounds = 1 if quick else max((rival.rounds for rival in rivals), default=0)
    for turn in range(rounds):
        for rival in rivals:
            where = ready[rival.name]
            if isinstance(where, str) or rival.name in reasons or turn >= rival.rounds:
                continue
            began = time.monotonic()
            try:
                found = rival.measure(where, _QUICK if quick else Plan(slow=turn == 0))
            except (NotRun, RequestFailed, OSError, AssertionError) as error:
                reasons[rival.name] = str(error) or type(error).__name__
                continue
            readings[rival.name].append(found)
            sys.stderr.write(f"round {turn + 1}: {rival.name}, {time.monotonic() - began:.0f} s\n")
        loads.append(os.getloadavg()[0])
    return [column_of(rival, readings[rival.name], reasons.get(rival.name, "")) for rival in rivals]


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/rivals.md")
    parser.add_argument("--only", default="", help="systems whose name holds these words")
    parser.add_argument("--quick", action="store_true", help="one small round, to see it work")
    options = parser.parse_args(argv)
    if options.write and (options.only or options.quick):
        parser.error("--write needs a full run")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
