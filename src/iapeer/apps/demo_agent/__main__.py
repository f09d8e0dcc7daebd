"""`python -m iapeer.apps.demo_agent [--resume | --help]`."""

from __future__ import annotations

import os
import sys

from iapeer.apps import demo_agent

from .loop import leave, run
from .options import Options


def main(argv: list[str]) -> int:
    """Run the demo agent; return its exit status (2: bad arguments, environment or no terminal)."""
    if argv in (["--help"], ["-h"]):
        print(demo_agent.__doc__)
        return 0
    if argv not in ([], ["--resume"]):
        print(f"demo agent: unknown arguments {argv}; see --help", file=sys.stderr)
        return 2
    if not os.isatty(0):
        print("demo agent: needs a terminal on its standard input", file=sys.stderr)
        return 2
    try:
        return run(Options(os.environ, resumed=bool(argv)))
    except ValueError as error:
        print(f"demo agent: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
