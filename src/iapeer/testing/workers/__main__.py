"""`python -m iapeer.testing.workers`: exit status 0 when every task was done as promised."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from . import report
from .plan import WorkerOptions
from .runner import run


def main(argv: list[str] | None = None) -> int:
    """Do one run, print the verdict, write the report if one is wanted."""
    defaults = WorkerOptions()
    parser = argparse.ArgumentParser(prog="python -m iapeer.testing.workers", description=__doc__)
    parser.add_argument("--tasks", type=int, default=defaults.tasks)
    parser.add_argument("--kills", type=int, default=defaults.kills, help="of the daemon")
    parser.add_argument(
        "--worker-kills", type=int, default=defaults.worker_kills, help="of the worker's program"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="repeats a plan")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="time limit")
    parser.add_argument("--report", type=Path, help="write a Markdown report to this file")
    found = parser.parse_args(argv)
    options = WorkerOptions(
        tasks=found.tasks,
        kills=found.kills,
        worker_kills=found.worker_kills,
        seed=found.seed,
        seconds=found.seconds,
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
