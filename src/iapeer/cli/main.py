"""The `iapeer` command: finds the verb, runs it, and turns whatever happens into an exit status.

0: done. 1: an error, told in one line. 2: a command line that can't be understood. 130: Ctrl-C.
This module and what it imports at the top is all that `send` and `version` pay for.
"""

from __future__ import annotations

import sys

from iapeer import __version__

from . import output

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .grammar import Call
    from .verb import Verb

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

_ASKS_HELP = frozenset({"--help", "-h"})
_VERSION_FLAGS = frozenset({"--version", "-v"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit status."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    output.prepare()
    try:
        status = _run(tokens)
        output.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the root: a user gets a sentence, not a traceback
        status = _report(tokens[0] if tokens else "", error)
    return status


def version(call: Call) -> int:
    """Print the version."""
    del call
    output.say(__version__)
    return 0


def show_help(call: Call) -> int:
    """Print the help of one verb, or of the command."""
    from . import grammar

    name = call.get("verb")
    output.say(grammar.overview() if name is None else grammar.explain(grammar.find(name)))
    return 0


def _run(tokens: list[str]) -> int:
    if tokens[:1] == ["version"] and len(tokens) == 1:
        output.say(__version__)
        return 0
    from . import grammar
    from .verbs import BY_NAME

    if not tokens:
        output.warn(grammar.overview())
        return 2
    if tokens[0] in _VERSION_FLAGS:
        tokens = ["version", *tokens[1:]]
    verb = BY_NAME.get(tokens[0])
    if verb is None:
        return _no_verb(tokens)
    call = grammar.parse(verb, tokens[1:])
    if call is None:
        output.say(grammar.explain(verb))
        return 0
    return _handler(verb)(call)


def _no_verb(tokens: list[str]) -> int:
    """Answer a line that does not begin with a verb: a runtime is launched, help is still help."""
    from . import grammar
    from .verbs import BY_NAME

    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    if _ASKS_HELP.intersection(options):
        named = [BY_NAME[token] for token in options if token in BY_NAME]
        output.say(grammar.explain(named[0]) if named else grammar.overview())
        return 0
    runtimes = _runtimes()
    if tokens[0] in runtimes:
        tokens.insert(0, "launch")  # in the caller's list: errors are told of that verb
        return _run(tokens)
    grammar.find(tokens[0], runtimes)  # raises
    return 2


def _runtimes() -> tuple[str, ...]:
    """Return the ids of all runtimes: only a known one is launched, never a mistyped verb."""
    from iapeer.runtimes.catalog import Catalog

    from .context import load_settings

    return Catalog.load(load_settings().runtimes_dir).ids()


def _handler(verb: Verb) -> Callable[[Call], int]:
    """Import what does the verb."""
    import importlib

    module, _, function = verb.handler.partition(":")
    handler: Callable[[Call], int] = getattr(
        importlib.import_module(f".{module}", __package__), function
    )
    return handler


def _report(verb: str, error: Exception) -> int:
    """Say what went wrong; returns the exit status."""
    from iapeer.core.errors import IapeerError, UsageError

    from .verbs import BY_NAME

    known = BY_NAME.get(verb)
    if isinstance(error, UsageError):
        from . import grammar

        output.fail(verb if known else "", error.message, error.hint)
        output.warn(grammar.synopsis(known) if known else f"verbs: {' '.join(BY_NAME)}")
        return 2
    if isinstance(error, IapeerError):
        output.fail(verb, error.message, error.hint)
    elif isinstance(error, OSError):
        output.fail(verb, *_of_the_system(error))
    else:
        output.fail(
            verb,
            f"internal error: {type(error).__name__}: {error} ({_place_of(error)})",
            "this is a defect of iapeer, please report it",
        )
    return 1


def _of_the_system(error: OSError) -> tuple[str, str]:
    """Return what the system says and, where we know it, what to do."""
    from pathlib import Path

    if error.filename is None and isinstance(error, FileNotFoundError):
        try:
            Path.cwd()
        except FileNotFoundError:
            return "the folder you are in does not exist any more", "change to another folder"
    about = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{about}", ""


def _place_of(error: Exception) -> str:
    """Return the line of ours an error comes from; all that is left of the traceback."""
    step = error.__traceback__
    where = "no place known"
    while step is not None:
        where = f"{step.tb_frame.f_globals.get('__name__', '?')}, line {step.tb_lineno}"
        step = step.tb_next
    return where
