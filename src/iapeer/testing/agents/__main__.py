"""`python -m iapeer.testing.agents install claude codex`, and `... locate claude`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from iapeer.core.errors import IapeerError, LockBusy

from .errors import GATE_NOT_RUN, UNAVAILABLE, DownloadFailed, NotForThisMachine
from .install import CACHE, Installer, locate
from .pins import load_pins

_EPILOG = f"""exit status: 0 all there; {UNAVAILABLE} this machine can't (npm or a build for its
platform is missing); {GATE_NOT_RUN} "gate not run": three downloads failed, or with CI set this
machine can't; 1 what came is not what is pinned, and any other failure; 2 wrong arguments"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do one command and return the exit status."""
    found = _parser().parse_args(argv)
    if found.command == "locate":
        return _locate(found.name, found.cache)
    signal.signal(signal.SIGTERM, _leave)
    return _install(found.names, found.cache)


def in_ci(environ: Mapping[str, str]) -> bool:
    """Tell whether this is continuous integration, where nothing may be skipped."""
    return environ.get("CI", "").lower() not in {"", "0", "false"}


def exit_status(error: IapeerError, *, ci: bool) -> int:
    """Return what an error ends the command with."""
    if isinstance(error, DownloadFailed | LockBusy):
        return GATE_NOT_RUN
    if isinstance(error, NotForThisMachine):
        return GATE_NOT_RUN if ci else UNAVAILABLE
    return 1


def _install(names: Sequence[str], cache: Path) -> int:
    """Install all at once: each has its own folder, lock and npm."""
    installer = Installer(cache, say=lambda line: print(line, flush=True))
    with ThreadPoolExecutor(len(names)) as pool:
        try:
            running = {name: pool.submit(installer.install, name) for name in names}
            errors = [error for name in names if (error := _error(name, running[name]))]
        finally:
            # Also on Ctrl-C and SIGTERM: the threads end their npm and clean up.
            installer.stop.set()
    statuses = {exit_status(error, ci=in_ci(os.environ)) for error in errors}
    for status in (1, GATE_NOT_RUN, UNAVAILABLE):
        if status in statuses:
            if status == GATE_NOT_RUN:
                print("gate not run: the real agents could not be installed", file=sys.stderr)
            return status
    return 0


def _error(name: str, running: Future[Path]) -> IapeerError | None:
    try:
        running.result()
    except IapeerError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return error
    return None


def _locate(name: str, cache: Path) -> int:
    try:
        print(locate(name, cache))
    except IapeerError as error:
        print(error, file=sys.stderr)
        return exit_status(error, ci=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m iapeer.testing.agents", description=__doc__, epilog=_EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="download, verify, put into the cache folder")
    install.add_argument("names", nargs="+", choices=tuple(load_pins()), metavar="NAME")
    where = commands.add_parser("locate", help="print where an installed program is")
    where.add_argument("name", choices=tuple(load_pins()), metavar="NAME")
    for command in (install, where):
        command.add_argument("--cache", type=Path, default=CACHE, help=f"default: {CACHE}")
    return parser


def _leave(_number: int, _frame: object) -> NoReturn:
    """Turn SIGTERM into an exit that cleans up, as SIGINT does by itself."""
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
