"""Trusting a file of Codex hooks: Codex runs a hook only when its configuration has its hash.

Measured with codex-cli 0.169.0 (`hooks/list` of its app-server) and in agreement with the vectors
of 0.138.0, but that 0.169 asks for a hash of hooks with `async` too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from iapeer.core.errors import InvalidInput, StorageError
from iapeer.storage.jsonfile import read_json

from .merge import Merge, Merged, Put, merge, read_toml

HookStatus = Literal["trusted", "missing", "drift"]

_EVENTS = {
    "PreModelRequest": "pre_model_request",
    "PostModelRequest": "post_model_request",
    "PreToolUse": "pre_tool_use",
    "PermissionRequest": "permission_request",
    "PostToolUse": "post_tool_use",
    "PreCompact": "pre_compact",
    "PostCompact": "post_compact",
    "SessionStart": "session_start",
    "SessionEnd": "session_end",
    "UserPromptSubmit": "user_prompt_submit",
    "SubagentStart": "subagent_start",
    "SubagentStop": "subagent_stop",
    "Stop": "stop",
    "Interrupt": "interrupt",
}
_NO_MATCHER = frozenset(
    {"pre_model_request", "post_model_request", "user_prompt_submit", "stop", "interrupt"}
)
_ADDS_CONTEXT = frozenset(
    {"pre_tool_use", "post_tool_use", "session_start", "user_prompt_submit", "subagent_start"}
)
"""Events for which `additionalContextLimit` means something."""
_TIMEOUT_S = 600
_BRIEF = frozenset({"session_end", "interrupt"})
"""Events whose hooks have 1 second, and at most 3."""


class Hook(msgspec.Struct, frozen=True):
    """A hook that needs trust; `key` is its name in the configuration, `hash` what it must say."""

    event: str
    key: str
    hash: str


def read_hooks(path: Path) -> tuple[Hook, ...]:
    """Return the command hooks of a file, in its order.

    Hooks that Codex passes over (not a command, or a blank one) have no entry but keep their
    number.

    Raises InvalidInput naming the place, for an unknown event too.
    """
    try:
        raw = read_json(path)
    except StorageError as error:
        raise InvalidInput(error.message, hint=error.hint) from error
    if not isinstance(raw, dict):
        raise _invalid(path, "the file", "an object")
    events = raw.get("hooks", {})
    if not isinstance(events, dict):
        raise _invalid(path, "hooks", "an object")
    return tuple(hook for name in events for hook in _of_event(path, name, events[name]))


def status_of(config: Path, hooks: tuple[Hook, ...]) -> tuple[HookStatus, ...]:
    """Return whether Codex trusts each hook: `drift` is a hash of what it was before.

    Raises StorageError for a configuration that can't be read.
    """
    known = _state(read_toml(config))
    return tuple(_status(known.get(hook.key), hook) for hook in hooks)


def trust_hooks(config: Path, hooks: tuple[Hook, ...]) -> Merged:
    """Have Codex trust the hooks.

    Raises StorageError, LockBusy.
    """
    put = tuple(Put(("hooks", "state", hook.key, "trusted_hash"), hook.hash) for hook in hooks)
    return merge(Merge(path=config, put=put, is_shared=True))


def hook_hash(event: str, matcher: str | None, handler: Mapping[str, Any]) -> str:
    """Return the hash of one command hook of `event` (in snake case), as Codex computes it."""
    brief = event in _BRIEF
    timeout = handler.get("timeout")
    seconds = max(1, (1 if brief else _TIMEOUT_S) if timeout is None else timeout)
    hook: dict[str, Any] = {
        "type": "command",
        "command": handler["command"],
        "timeout": min(3, seconds) if brief else seconds,
        "async": handler.get("async") is True,
    }
    for name in ("statusMessage", "additionalContextLimit"):
        counts = name == "statusMessage" or event in _ADDS_CONTEXT
        if counts and handler.get(name) is not None:
            hook[name] = handler[name]
    identity: dict[str, Any] = {"event_name": event, "hooks": [hook]}
    if matcher is not None and event not in _NO_MATCHER:
        identity["matcher"] = matcher
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _of_event(path: Path, name: str, groups: object) -> Iterator[Hook]:
    event = _EVENTS.get(name)
    if event is None:
        raise InvalidInput(
            f"{path}: unknown event {name!r}", hint=f"known events: {', '.join(_EVENTS)}"
        )
    for number, group in enumerate(_list(path, name, groups)):
        place = f"{name}[{number}]"
        if not isinstance(group, dict):
            raise _invalid(path, place, "an object")
        matcher = group.get("matcher")
        if matcher is not None and not isinstance(matcher, str):
            raise _invalid(path, f"{place}.matcher", "a string")
        for index, handler in enumerate(_list(path, f"{place}.hooks", group.get("hooks", []))):
            command = _command(path, f"{place}.hooks[{index}]", handler)
            if command is not None:
                key = f"{os.path.realpath(path)}:{event}:{number}:{index}"
                yield Hook(event, key, hook_hash(event, matcher, command))


def _command(path: Path, place: str, handler: object) -> dict[str, Any] | None:
    """Return a handler that Codex runs, None for one that it passes over.

    Raises InvalidInput for one that makes Codex refuse the whole file.
    """
    if not isinstance(handler, dict):
        raise _invalid(path, place, "an object")
    if handler.get("type") != "command":
        return None
    command = handler.get("command")
    if not isinstance(command, str):
        raise _invalid(path, f"{place}.command", "a string")
    for name in ("timeout", "additionalContextLimit"):
        value = handler.get(name)
        if value is not None and (type(value) is not int or value < 0):
            raise _invalid(path, f"{place}.{name}", "a whole number")
    if not isinstance(handler.get("statusMessage", ""), str | None):
        raise _invalid(path, f"{place}.statusMessage", "a string")
    return handler if command.strip() else None


def _list(path: Path, place: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _invalid(path, place, "a list")
    return value


def _invalid(path: Path, place: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"{path}: {place} must be {wanted}", hint="Codex would not load it either")


def _state(document: Mapping[str, object]) -> dict[str, object]:
    hooks = document.get("hooks")
    state = hooks.get("state") if isinstance(hooks, dict) else None
    return state if isinstance(state, dict) else {}


def _status(entry: object, hook: Hook) -> HookStatus:
    known = entry.get("trusted_hash") if isinstance(entry, dict) else None
    if known is None:
        return "missing"
    return "trusted" if known == hook.hash else "drift"
