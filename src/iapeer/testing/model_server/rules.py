"""What the model is told to do: rules of steps, and the replies they make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from iapeer.core.errors import ConfigError


class Say(msgspec.Struct, frozen=True):
    """Answer with this text, exactly; nothing in it is expanded."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """Call a tool; the reply ends here and the next step waits for the tool's result.

    `tool` is the name as offered or its last part (`send_to_peer` finds
    `mcp__iapeer__send_to_peer`, `iapeer_send_to_peer` and the tool of a namespace). In `tool` and
    in every string of `args`, `$1` to `$9` are the groups of the rule's `when`, `$0` the whole
    match and `$$` a dollar sign. `args` may also be one `"$N"`: that group is then read as JSON.
    """

    tool: str
    args: dict[str, Any] | str = {}


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """Answer with an HTTP error, or break the stream after what was said (`mid_stream`).

    `times` is how many requests of a turn get it before the next step is taken; without it every
    request does. `retry_after` is in seconds and goes into the header of that name. With
    `resets_in_s` the quota of a plan is used up for so long; only OpenAI's protocols tell until
    when, in body and headers as Codex 0.169.0 reads them. A reply that isn't streamed can't break
    in the middle: it gets the HTTP error.
    """

    status: int
    retry_after: int | None = None
    times: int | None = None
    mid_stream: bool = False
    message: str = "the script says so"
    resets_in_s: float | None = None


class Slow(msgspec.Struct, frozen=True):
    """Wait `seconds` before each chunk of the reply this step stands in."""

    seconds: float


class Hold(msgspec.Struct, frozen=True):
    """Wait at this place of the reply until there is a file `until`.

    What is said before has been sent by then; a reply that isn't streamed waits as a whole. `until`
    is expanded as a call's `tool` is, so a text can name its own file. The wait also ends when the
    server stops, or the client leaves a stream.
    """

    until: str


Step = Say | Call | Fail | Slow | Hold


class Reply(msgspec.Struct, frozen=True):
    """The steps that make one answer of the model; only the last may be a `Call` or a `Fail`."""

    steps: tuple[Step, ...]

    @property
    def call(self) -> Call | None:
        """The tool call that ends this reply."""
        last = self.steps[-1]
        return last if isinstance(last, Call) else None

    @property
    def fail(self) -> Fail | None:
        """The error that ends this reply."""
        last = self.steps[-1]
        return last if isinstance(last, Fail) else None


class Rule(msgspec.Struct, frozen=True):
    """When the last user text matches `when` (searched, not anchored), do `then`.

    `times` is how many turns the rule answers; after that the next matching rule is asked.
    Raises ConfigError for an expression that doesn't compile or steps that can't be reached.
    """

    when: str
    then: tuple[Step, ...]
    times: int | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.when)
        except re.error as error:
            raise ConfigError(f"rule {self.when!r}: {error}") from error
        problem = _problem(self)
        if problem:
            raise ConfigError(f"rule {self.when!r}: {problem}")

    @property
    def replies(self) -> tuple[Reply, ...]:
        """The steps, cut into answers."""
        return tuple(_replies(self.then))


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """All a model server is told.

    `default` is said when no rule matches or a rule has no step left. `side` is the answer to
    requests without tools (titles, summaries); with `rules_without_tools` they follow the rules
    too. `chunk_chars` is how many characters one chunk of a stream holds.
    """

    rules: tuple[Rule, ...] = ()
    default: str = "ok"
    side: str = "A title"
    rules_without_tools: bool = False
    chunk_chars: int = 16

    def __post_init__(self) -> None:
        if self.chunk_chars < 1:
            raise ConfigError(f"chunk_chars must be 1 or more, not {self.chunk_chars}")


def _replies(steps: tuple[Step, ...]) -> Iterator[Reply]:
    """Cut after each call and error; an error that doesn't break a stream stands alone."""
    held: list[Step] = []
    for step in steps:
        if isinstance(step, Fail) and not step.mid_stream and any(isinstance(s, Say) for s in held):
            yield Reply(tuple(held))
            held = []
        held.append(step)
        if isinstance(step, Call | Fail):
            yield Reply(tuple(held))
            held = []
    if held:
        yield Reply(tuple(held))


def _problem(rule: Rule) -> str:
    """Say what is wrong with a rule's figures or order; empty when nothing is."""
    if not rule.then:
        return "it has no steps"
    if rule.times is not None and rule.times < 1:
        return "times must be 1 or more"
    for step in rule.then:
        found = _step_problem(step)
        if found:
            return found
    for reply in rule.replies[:-1]:
        if reply.fail is not None and reply.fail.times is None:
            return "steps after an error without times are never taken"
        if reply.fail is None and reply.call is None:
            return "an error after a text must be mid_stream: the text ends the turn"
    return ""


def _step_problem(step: Step) -> str:
    """Say what is wrong with one step; empty when nothing is."""
    if isinstance(step, Slow) and not 0 <= step.seconds <= 600:
        return "slow takes 0 to 600 seconds"
    if isinstance(step, Fail):
        if not 400 <= step.status <= 599:
            return f"{step.status} is no error status"
        if step.times is not None and step.times < 1:
            return "times must be 1 or more"
        if min(step.retry_after or 0, step.resets_in_s or 0) < 0:
            return "retry_after and resets_in_s must not be negative"
    return ""
