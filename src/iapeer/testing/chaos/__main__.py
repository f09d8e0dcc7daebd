"""`python -m iapeer.testing.chaos`: exit status 0 when delivery told no lie, 1 when it did."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from . import report
from .options import ChaosOptions
from .runner import run


def main(argv: list[str] | None = None) -> int:
    """Do one run, print the verdict, write the report if one is wanted."""
    defaults = ChaosOptions()
    parser = argparse.ArgumentParser(prog="python -m iapeer.testing.chaos", description=__doc__)
    parser.add_argument("--messages", type=int, default=defaults.messages)
    parser.add_argument("--kills", type=int, default=defaults.kills)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="repeats a plan")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="time limit")
    parser.add_argument("--disk", choices=("auto", "tmpfs", "rlimit"), default=defaults.disk)
    parser.add_argument("--keep", action="store_true", help="keep history, ledger and logs")
    parser.add_argument("--report", type=Path, help="write a Markdown report to this file")
    found = parser.parse_args(argv)
    options = ChaosOptions(
        messages=found.messages,
        kills=found.kills,
        seed=found.seed,
        seconds=found.seconds,
        disk=found.disk,
        keep=found.keep,
    )
    signal.signal(signal.SIGTERM, _leave)
    result = run(options)
    print(report.verdict(result))
    if found.report is not None:
        found.report.write_text(report.markdown(result), encoding="utf-8")
    return 0 if report.passed(result) else 1


def _leave(_number: int, _frame: object) -> NoReturn:
    """Turn SIGTERM into an exit that cleans up, as SIGINT does by itself."""
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
