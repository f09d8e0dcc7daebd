"""Measure: `python -m benchmarks [ROW...] [--json] [--size FACTOR] [--write] [--gate]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

import msgspec

from benchmarks import gate, report
from benchmarks.figures import Figure, Size
from benchmarks.machine import describe
from benchmarks.rows import BY_NAME, ROWS


def main(argv: Sequence[str]) -> int:
    """Measure the rows that are named, or all; return the exit status.

    A missed budget is told, not an error: machines differ. `--gate` is what fails.
    """
    options = _options(argv)
    # Daemons are ended by `finally`: an ordinary end of this process must run them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.gate:
        return gate.run()
    machine = describe()
    chosen = [BY_NAME[name] for name in options.rows] or list(ROWS)
    began = time.monotonic()
    figures: list[Figure] = []
    if not options.json:
        sys.stdout.write(f"{machine.words()}\n\n{report.text_head()}")
    for row in chosen:
        found = row.measure(Size(options.size))
        figures += found
        if not options.json:
            sys.stdout.write(report.text_lines(found))
            sys.stdout.flush()
    took_s = time.monotonic() - began
    if options.json:
        sys.stdout.write(_json(machine, figures, took_s))
    else:
        missed = sum(figure.met is False for figure in figures)
        sys.stdout.write(f"\n{len(figures)} figures, {missed} missed, {took_s:.0f} s\n")
    if options.write:
        report.write_page(report.page_part(machine, figures, took_s))
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(BY_NAME))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--size", type=float, default=1.0, help="part of a full run's samples")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument("--gate", action="store_true", help="quick rows; fail on a regression")
    options = parser.parse_args(argv)
    unknown = [name for name in options.rows if name not in BY_NAME]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    if options.write and (options.rows or options.size != 1.0):
        parser.error("--write needs a full run")
    return options


def _json(machine: object, figures: Sequence[Figure], took_s: float) -> str:
    rows = [
        {
            **msgspec.to_builtins(figure),
            "budget": figure.budget.words(figure.unit),
            "ratio": figure.ratio,
            "met": figure.met,
        }
        for figure in figures
    ]
    answer = {"machine": msgspec.to_builtins(machine), "took_s": took_s, "figures": rows}
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
