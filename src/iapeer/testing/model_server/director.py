"""Which answer a request gets: the rule of its turn, and the step that turn has come to."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import InvalidInput

from .asks import Ask, Tool
from .rules import Call, Fail, Hold, Reply, Rule, Say, Script, Slow

_TURNS = 1_000
"""Turns remembered; one that is forgotten starts again at its rule's first step."""


class ToolUse(msgspec.Struct, frozen=True):
    """A call with its tool found and its arguments filled in."""

    tool: Tool
    args: dict[str, Any]


class Wait(msgspec.Struct, frozen=True):
    """A file that must be there before more than the first `texts` texts goes out."""

    texts: int
    until: Path


class Answer(msgspec.Struct, frozen=True):
    """What goes out: texts, then perhaps a call or an error; `delay_s` before each chunk."""

    texts: tuple[str, ...] = ()
    use: ToolUse | None = None
    fail: Fail | None = None
    delay_s: float = 0.0
    waits: tuple[Wait, ...] = ()


@dataclass
class _Turn:
    """One turn of one agent, from the user's text to the last answer."""

    rule: Rule | None
    groups: tuple[str, ...] = ()
    failed: dict[int, int] = field(default_factory=dict)
    over: bool = False


class Director:
    """Follows one script for any number of agents.

    A turn is known by the agent's key, its last user text and how many texts came before it;
    the step by the number of tool results since. So a session that is resumed, or retried after
    an error, goes on where it was. Agents are told apart by their keys.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._turns: OrderedDict[str, _Turn] = OrderedDict()
        self._used: dict[int, int] = {}

    def answer(self, ask: Ask, credentials: str) -> Answer:
        """Decide; raises InvalidInput when a rule calls a tool that isn't offered.

        Requests that want a JSON schema are side requests too: some CLIs send their title
        requests with the tools on.
        """
        if ask.schema is not None or not (ask.tools or self._script.rules_without_tools):
            return Answer((side_text(self._script.side, ask.schema),))
        turn = self._turn(ask, credentials)
        reply = _current(turn, ask.rounds)
        if reply is None:
            turn.over = True
            return Answer((self._script.default,))
        made = _fill(reply, turn.groups, ask)
        if made.fail is None and made.use is None:
            turn.over = True
        return made

    def _turn(self, ask: Ask, credentials: str) -> _Turn:
        users = ask.texts("user")
        known = json.dumps((credentials, len(users), ask.last_user_text))
        key = hashlib.sha256(known.encode()).hexdigest()
        turn = self._turns.get(key)
        if turn is None or (turn.over and ask.rounds == 0):
            turn = self._begin(ask.last_user_text)
        self._turns[key] = turn
        self._turns.move_to_end(key)
        if len(self._turns) > _TURNS:
            self._turns.popitem(last=False)
        return turn

    def _begin(self, text: str) -> _Turn:
        for index, rule in enumerate(self._script.rules):
            found = re.search(rule.when, text)
            used = self._used.get(index, 0)
            if found is None or (rule.times is not None and used >= rule.times):
                continue
            self._used[index] = used + 1
            return _Turn(rule, (found.group(0), *(group or "" for group in found.groups())))
        return _Turn(None)


def _current(turn: _Turn, rounds: int) -> Reply | None:
    """Find the reply this turn has come to and count an error that is about to be given."""
    for index, reply in enumerate(turn.rule.replies if turn.rule else ()):
        if rounds > 0:
            rounds -= reply.call is not None
            continue
        if reply.fail is None:
            return reply
        failed = turn.failed.get(index, 0)
        if reply.fail.times is None or failed < reply.fail.times:
            turn.failed[index] = failed + 1
            return reply
    return None


def _fill(reply: Reply, groups: tuple[str, ...], ask: Ask) -> Answer:
    call = reply.call
    return Answer(
        texts=tuple(step.text for step in reply.steps if isinstance(step, Say)),
        use=_use(call, groups, ask) if call is not None else None,
        fail=reply.fail,
        delay_s=next((step.seconds for step in reply.steps if isinstance(step, Slow)), 0.0),
        waits=tuple(_waits(reply, groups)),
    )


def _waits(reply: Reply, groups: tuple[str, ...]) -> Iterator[Wait]:
    said = 0
    for step in reply.steps:
        said += isinstance(step, Say)
        if isinstance(step, Hold):
            yield Wait(said, Path(_expand(step.until, groups)))


def _use(call: Call, groups: tuple[str, ...], ask: Ask) -> ToolUse:
    args: Any = call.args
    if isinstance(args, str):
        text = _expand(args, groups)
        try:
            args = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"the arguments of {call.tool} are not JSON: {error}") from error
    else:
        args = _expand_all(args, groups)
    if not isinstance(args, dict):
        raise InvalidInput(f"the arguments of {call.tool} are not an object")
    return ToolUse(_find(_expand(call.tool, groups), ask.tools), args)


def _find(name: str, tools: tuple[Tool, ...]) -> Tool:
    """Find the one tool of this name, or the one that ends with it."""
    for found in (
        [tool for tool in tools if tool.name == name],
        [tool for tool in tools if tool.namespace and f"{tool.namespace}__{tool.name}" == name],
        [tool for tool in tools if tool.name.endswith(f"_{name}")],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"more than one tool is called {name}")
    offered = ", ".join(sorted(tool.name for tool in tools)) or "none"
    raise InvalidInput(f"the script calls {name}, which is not offered (offered: {offered})")


def _expand(text: str, groups: tuple[str, ...]) -> str:
    """Put the groups in; one that the expression doesn't have is empty."""

    def value(found: re.Match[str]) -> str:
        mark = found.group(1)
        if mark == "$":
            return "$"
        number = int(mark)
        return groups[number] if number < len(groups) else ""

    return re.sub(r"\$([0-9$])", value, text)


def _expand_all(value: Any, groups: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _expand(value, groups)
    if isinstance(value, dict):
        return {key: _expand_all(inner, groups) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand_all(inner, groups) for inner in value]
    return value


def side_text(text: str, schema: dict[str, Any] | None) -> str:
    """Return the short answer, as an object of `schema` when one is wanted."""
    return text if schema is None else json.dumps(_example(schema, text, 0))


def _example(schema: Any, text: str, depth: int) -> Any:
    """Make the plainest value of a schema; parts it can't tell become the text."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object" and depth < 8:
        inner = schema.get("properties") or {}
        return {name: _example(part, text, depth + 1) for name, part in inner.items()}
    plain: dict[Any, Any] = {"array": [], "boolean": False, "integer": 0, "number": 0, "null": None}
    return plain.get(kind, text) if not isinstance(kind, list) else text
