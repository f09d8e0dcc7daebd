"""What a verb is: its arguments, options, examples and handler, as plain values.

Plain classes on purpose: `send` reads the table too, and dataclasses or msgspec would cost it half
its budget.
"""

from __future__ import annotations


class Argument:
    """One positional word of a verb."""

    __slots__ = ("is_required", "name", "text")

    def __init__(self, name: str, text: str, *, is_required: bool = True) -> None:
        self.name = name
        self.text = text
        self.is_required = is_required


class Option:
    """One `--flag` of a verb; without `metavar` it is a boolean that takes no value."""

    __slots__ = ("is_repeatable", "metavar", "name", "text")

    def __init__(
        self, name: str, text: str, metavar: str = "", *, is_repeatable: bool = False
    ) -> None:
        self.name = name
        self.text = text
        self.metavar = metavar
        self.is_repeatable = is_repeatable

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.name}"


class Verb:
    """One verb, complete; `handler` takes a `Call` and returns the exit status."""

    __slots__ = ("arguments", "examples", "handler", "name", "notes", "options", "purpose")

    def __init__(  # noqa: PLR0913 - a record, built by keyword in the table below and nowhere else
        self,
        name: str,
        *,
        purpose: str,
        handler: str,
        examples: tuple[str, ...],
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        notes: str = "",
    ) -> None:
        self.name = name
        self.purpose = purpose
        self.handler = handler
        self.examples = examples
        self.arguments = arguments
        self.options = options
        self.notes = notes


PEER = Argument("peer", "name of the peer")
RUNTIME = Argument("runtime", "only this runtime of the peer", is_required=False)
RUNTIME_DEFAULT = Argument("runtime", "which one; default: the peer's own", is_required=False)
JSON = Option("json", "print JSON")
