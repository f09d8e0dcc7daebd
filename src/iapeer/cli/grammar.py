"""How a command line is read and how it is explained: one grammar for every verb, from the table.

`--key value` and `--key=value` mean the same; a token that begins with `--` is never taken for the
value of the option before it (use the `=` form, `--key=` is an empty value); a boolean option takes
no value; `--` ends the options. `--help` or `-h` anywhere before `--` asks for help, unless `-h`
is the value of an option: a message may be `-h`, and it would be lost without a word. For the same
reason the bare word `help` asks for it only where a verb expects no word.

The standard parser is not used: it would double the cost of `send`, and it reads a value that
begins with `-` as an option. The tests compare the two on what they have in common.
"""

from __future__ import annotations

from iapeer.core.errors import UsageError

from .verb import Option, Verb
from .verbs import BY_NAME, VERBS

TYPE_CHECKING = False  # typing costs `send` 3 ms; a type checker takes this name for true
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 88
_HELP = frozenset({"--help", "-h"})


class Call:
    """One command line, understood: the verb and what was given to it."""

    __slots__ = ("_given", "verb")

    def __init__(self, verb: Verb, given: dict[str, list[str]]) -> None:
        self.verb = verb
        self._given = given

    def has(self, name: str) -> bool:
        """Tell whether an option or a word was given."""
        return name in self._given

    def get(self, name: str) -> str | None:
        """Return the value of an option or a word, None when it was not given."""
        values = self._given.get(name)
        return values[0] if values else None

    def need(self, name: str) -> str:
        """Return the value of a word that `parse` has made sure of."""
        return self._given[name][0]

    def every(self, name: str) -> list[str]:
        """Return all values of a repeatable option, in the order given."""
        return list(self._given.get(name, ()))


def parse(verb: Verb, tokens: Sequence[str]) -> Call | None:
    """Read what follows the verb; None means that help was asked for and nothing else counts.

    Raises UsageError with the first thing that can't be understood.
    """
    options = {option.flag: option for option in verb.options}
    given: dict[str, list[str]] = {}
    words: list[str] = []
    trouble: UsageError | None = None
    rest = list(reversed(tokens))
    while rest:
        part = rest.pop()
        if part == "--":
            words.extend(reversed(rest))
            break
        if part in _HELP:
            return None
        if part == "-" or not part.startswith("-"):
            words.append(part)
            continue
        try:
            option = _known(options, part)
            _add(given, option, _value(option, part, rest))
        except UsageError as error:
            # Help may still follow, and it wins: go on reading.
            trouble = trouble or error
    if words == ["help"] and not verb.arguments:
        return None
    if trouble is not None:
        raise trouble
    _place(verb, words, given)
    return Call(verb, given)


def find(name: str, also: Iterable[str] = ()) -> Verb:
    """Return a verb. Raises UsageError with the nearest name there is, `also` counted in."""
    verb = BY_NAME.get(name)
    if verb is None:
        hint = _nearest(name, [*BY_NAME, *also])
        raise UsageError(f"unknown verb {name!r}", hint=hint)
    return verb


def synopsis(verb: Verb) -> str:
    """Return the usage line(s) of a verb."""
    parts = [
        f"<{argument.name}>" if argument.is_required else f"[<{argument.name}>]"
        for argument in verb.arguments
    ]
    for option in verb.options:
        value = f" <{option.metavar}>" if option.metavar else ""
        parts.append(f"[{option.flag}{value}]" + ("..." if option.is_repeatable else ""))
    head = f"usage: iapeer {verb.name}"
    lines, line = [], head
    for part in parts:
        if len(line) + 1 + len(part) > _WIDTH:
            lines.append(line)
            line = " " * len(head)
        line += f" {part}"
    return "\n".join([*lines, line])


def explain(verb: Verb) -> str:
    """Return the whole help of a verb: usage, purpose, what it takes, notes, examples."""
    options = [
        (f"{option.flag} <{option.metavar}>" if option.metavar else option.flag, option.text)
        for option in verb.options
    ]
    blocks = [synopsis(verb), verb.purpose]
    if verb.arguments:
        blocks.append(_block("arguments", [(f"<{a.name}>", a.text) for a in verb.arguments]))
    blocks.append(_block("options", [*options, ("--help", "show this and do nothing")]))
    if verb.notes:
        blocks.append(verb.notes)
    blocks.append("examples:\n" + "\n".join(f"  {example}" for example in verb.examples))
    return "\n\n".join(blocks)


def overview() -> str:
    """Return the help of the whole command: every verb with its purpose."""
    return "\n\n".join(
        [
            "usage: iapeer <verb> [...]",
            "A team of AI agents, people and services, each a single message away.",
            _block("verbs", [(verb.name, verb.purpose) for verb in VERBS]),
            "`iapeer help <verb>` or `iapeer <verb> --help` explains one of them.",
        ]
    )


def _known(options: dict[str, Option], part: str) -> Option:
    name = part.partition("=")[0]
    if name in options:
        return options[name]
    hint = _nearest(name, options)
    if not name.startswith("--"):
        hint = "put -- before a word that begins with a hyphen"
    raise UsageError(f"there is no option {name!r}", hint=hint)


def _value(option: Option, part: str, rest: list[str]) -> str:
    """Return the option's value, taking the next token (the last of `rest`) if it needs to."""
    _, equals, value = part.partition("=")
    if not option.metavar:
        if equals:
            raise UsageError(f"{option.flag} takes no value", hint=f"write just {option.flag}")
        return ""
    if equals:
        return value
    if not rest or rest[-1].startswith("--"):
        raise UsageError(
            f"{option.flag} needs a value",
            hint=f"write {option.flag}=<{option.metavar}> if the value begins with --",
        )
    return rest.pop()


def _add(given: dict[str, list[str]], option: Option, value: str) -> None:
    """Keep a value. Raises UsageError for a second one: which of the two was meant is unknown."""
    if option.name in given and not option.is_repeatable:
        raise UsageError(f"{option.flag} is given more than once")
    given.setdefault(option.name, []).append(value)


def _place(verb: Verb, words: list[str], given: dict[str, list[str]]) -> None:
    """Give the words their names. Raises UsageError for one too many or too few."""
    for argument, word in zip(verb.arguments, words, strict=False):
        given[argument.name] = [word]
    missing = [a.name for a in verb.arguments[len(words) :] if a.is_required]
    if missing:
        raise UsageError("needs " + " and ".join(f"<{name}>" for name in missing))
    if len(words) > len(verb.arguments):
        raise UsageError(f"does not know what to do with {words[len(verb.arguments)]!r}")


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 3
    return f"{title}:\n" + "\n".join(f"  {name:<{width}}{text}" for name, text in rows)


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""
