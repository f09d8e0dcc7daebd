r"""The script file: TOML, one table per rule.

default = "ok"

[[rule]]
when = '(?s)^tell (\w+): (.*)$'
then = [
    { hold = "/tmp/go" },
    { slow = 0.1 },
    { error = 429, retry_after = 1, times = 1 },
    { call = "send_to_peer", args = { to = "$1", message = "$2" } },
    { say = "sent" },
]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import ConfigError

from .rules import Call, Fail, Hold, Rule, Say, Script, Slow, Step


class _StepTable(msgspec.Struct, forbid_unknown_fields=True):
    """One step as written; exactly one of the keys of `_BELONGS` names its kind."""

    say: str | None = None
    call: str | None = None
    error: int | None = None
    slow: float | None = None
    hold: str | None = None
    args: dict[str, Any] | str | None = None
    retry_after: int | None = None
    times: int | None = None
    mid_stream: bool | None = None
    message: str | None = None
    resets_in_s: float | None = None


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True):
    when: str
    then: list[_StepTable]
    times: int | None = None


class _ScriptTable(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    rule: list[_RuleTable] = []
    default: str = Script().default
    side: str = Script().side
    rules_without_tools: bool = False
    chunk_chars: int = Script().chunk_chars


_BELONGS = {
    "say": (),
    "slow": (),
    "hold": (),
    "call": ("args",),
    "error": ("retry_after", "times", "mid_stream", "message", "resets_in_s"),
}


def load_script(path: Path) -> Script:
    """Read a script file; raises ConfigError naming the file when it can't be used."""
    try:
        return parse_script(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_script(text: str) -> Script:
    """Read a script; raises ConfigError saying what is wrong and where."""
    try:
        table = msgspec.convert(tomllib.loads(text), _ScriptTable)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"not a script: {error}") from error
    return Script(
        rules=tuple(_rule(rule) for rule in table.rule),
        default=table.default,
        side=table.side,
        rules_without_tools=table.rules_without_tools,
        chunk_chars=table.chunk_chars,
    )


def _rule(table: _RuleTable) -> Rule:
    return Rule(table.when, tuple(_step(step, table.when) for step in table.then), table.times)


def _step(table: _StepTable, when: str) -> Step:
    given = {name for name in table.__struct_fields__ if getattr(table, name) is not None}
    kinds = given & _BELONGS.keys()
    if len(kinds) != 1:
        raise ConfigError(f"rule {when!r}: a step is one of {', '.join(_BELONGS)}")
    kind = kinds.pop()
    strange = given - {kind, *_BELONGS[kind]}
    if strange:
        raise ConfigError(f"rule {when!r}: {kind} takes no {', '.join(sorted(strange))}")
    if table.say is not None:
        return Say(table.say)
    if table.slow is not None:
        return Slow(table.slow)
    if table.hold is not None:
        return Hold(table.hold)
    if table.call is not None:
        return Call(table.call, table.args if table.args is not None else {})
    options = {name: getattr(table, name) for name in given - {kind}}
    return Fail(status=table.error or 0, **options)
