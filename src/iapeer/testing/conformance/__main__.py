"""`python -m iapeer.testing.conformance RUNTIME`; people write `iapeer dev conformance RUNTIME`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from iapeer.core.errors import IapeerError, InvalidInput, ManifestError, RuntimeUnknown

from .report import Report, as_json, as_markdown, as_text
from .simulation import ProgramMissing, Subject
from .suite import LIMIT_S, Suite

_NAME = "iapeer dev conformance"
_MISSING = 69
"""EX_UNAVAILABLE of sysexits.h."""
_EPILOG = "exit status: 0 all passed, 1 a check failed, 2 wrong arguments, 69 no such program"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite, print the table and return the exit status."""
    found = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    try:
        report = Suite(_subject(found), say=_progress, limit_s=found.timeout).run()
    except ProgramMissing as error:
        return _fail(error, _MISSING)
    except (RuntimeUnknown, ManifestError, InvalidInput) as error:
        return _fail(error, 2)
    except IapeerError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return 130
    print(_shown(report, found), flush=True)
    return 0 if report.passed else 1


def _shown(report: Report, found: argparse.Namespace) -> str:
    if found.json:
        return as_json(report)
    return as_markdown(report) if found.markdown else as_text(report)


def _subject(found: argparse.Namespace) -> Subject:
    return Subject(
        runtime=found.runtime,
        path=found.path,
        variables=dict(_pair(text, "--env") for text in found.env),
        home_files={
            name: Path(source).read_text(encoding="utf-8")
            for name, source in (_pair(text, "--home-file") for text in found.home_file)
        },
        runtimes_dir=found.runtimes,
    )


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or name.startswith("/") or ".." in Path(name).parts:
        _parser().error(f"{option}: {text!r} is not <name>=<value>")
    return name, value


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(error: IapeerError, status: int) -> int:
    print(f"{_NAME}: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return status


def _leave(number: int, _frame: object) -> NoReturn:
    """End in order: everything that was started is ended."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_NAME, description=__doc__, epilog=_EPILOG)
    add = parser.add_argument
    add("runtime", help="id of its manifest")
    add("--path", type=Path, help="folder to look for the program in before PATH")
    add("--env", action="append", default=[], metavar="NAME=VALUE")
    add("--home-file", action="append", default=[], metavar="PATH=FILE")
    add("--runtimes", type=Path, help="folder of manifests besides the shipped ones")
    add("--timeout", type=float, default=LIMIT_S, help="seconds for the whole run")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true")
    shape.add_argument("--markdown", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
