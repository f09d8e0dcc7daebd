"""Memory: the agents' own one off or on, the provider's commands again, hooks that are trusted."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from iapeer.core.errors import RegistryError, UsageError
from iapeer.core.settings import Settings
from iapeer.registry.index import Registry
from iapeer.registry.memory.care import Care, Cared, lifecycle_log
from iapeer.registry.memory.changes import Entry, add, update_changes
from iapeer.registry.memory.hooks import Hook, read_hooks, status_of, trust_hooks
from iapeer.registry.memory.lever import Turned, turn
from iapeer.registry.memory.slot import read_slot
from iapeer.registry.memory.trust import codex_config
from iapeer.storage.paths import Paths

from . import output
from .context import is_sandbox, load_settings, named_records
from .grammar import Call


def native_memory(call: Call) -> int:
    """Turn the memory that agent programs keep by themselves off or on."""
    action = call.need("action")
    if action not in {"on", "off"}:
        raise UsageError(f"{action!r} is neither off nor on")
    paths = Paths(load_settings().root)
    done = [
        turned
        for record in named_records(call)
        for turned in turn(paths, record, on=action == "on")
    ]
    if call.has("json"):
        output.emit([msgspec.to_builtins(turned) for turned in done])
    else:
        for turned in done:
            output.say(_told(turned))
        if not done:
            output.say("no peers registered")
    return 1 if any(turned.state == "failed" for turned in done) else 0


def memory(call: Call) -> int:
    """Do again for peers what their birth does when the slot is held."""
    if call.need("action") != "repair":
        raise UsageError(f"there is no memory {call.need('action')!r}", hint="did you mean repair?")
    settings = load_settings()
    paths = Paths(settings.root)
    if read_slot(paths.memory_slot) is None:
        output.say("memory: none, nothing to repair")
        return 0
    care, failed, shown = make_care(settings), False, []
    for record in named_records(call):
        cared = care.born(record, record.runtimes)
        failed = failed or bool(cared.warnings)
        shown.append({"personality": record.personality, **msgspec.to_builtins(cared)})
        if not call.has("json"):
            output.say(f"{record.personality}: {'; '.join(cared.lines) or 'nothing done'}")
        warn(cared)
    if call.has("json"):
        output.emit(shown)
    return 1 if failed else 0


def trust(call: Call) -> int:
    """Have Codex trust the hooks of a file, or tell whether it does."""
    path = Path(call.need("hooks-file")).expanduser()
    hooks = read_hooks(path)
    config = codex_config(os.environ)
    states = status_of(config, hooks)
    rows = [
        {"status": state, "event": hook.event, "key": hook.key, "hash": hook.hash}
        for hook, state in zip(hooks, states, strict=True)
    ]
    wrong = tuple(hook for hook, state in zip(hooks, states, strict=True) if state != "trusted")
    if call.has("check"):
        if call.has("json"):
            output.emit(rows)
        else:
            for row in rows:
                output.row(row["status"], row["event"], row["key"])
        return 1 if wrong else 0
    merged = trust_hooks(config, wrong)
    if wrong:
        _note(path, config, wrong)
    if call.has("json"):
        output.emit({"config": str(config), "trusted": len(wrong), "hooks": rows})
    else:
        output.say(f"trusted {len(wrong)} hook(s)" if wrong else "already trusted")
    if merged.backup:
        output.warn(f"the configuration as it was: {merged.backup}")
    return 0


def make_care(settings: Settings) -> Care:
    """Return the care for peers of this root, as this process may do it."""
    return Care(Paths(settings.root), os.environ, lifecycle_log(settings))


def warn(cared: Cared) -> None:
    """Say loudly what could not be done."""
    for warning in cared.warnings:
        output.warn(f"warning: {warning}")


def _told(turned: Turned) -> str:
    if turned.state == "skipped":
        return f"{turned.personality}: skipped — no runtime with a memory of its own"
    reason = f" — {turned.reason}" if turned.reason else f" — {turned.path}"
    return f"{turned.personality} ({turned.runtime}): {turned.state}{reason}"


def _note(path: Path, config: Path, hooks: tuple[Hook, ...]) -> None:
    """Note with the peer whose file it is what its removal has to take back."""
    paths = Paths(load_settings().root)
    real = os.path.realpath(path)
    new = tuple(Entry(str(config), hook.key) for hook in hooks)
    try:
        snapshot = Registry(paths, sandbox=is_sandbox()).snapshot(allow_stale=True)
    except RegistryError as error:
        output.warn(f"warning: a peer's removal will leave these hooks trusted: {error.message}")
        return
    for record in snapshot:
        if os.path.realpath(Path(record.cwd) / ".codex" / "hooks.json") == real:
            update_changes(
                paths,
                record,
                lambda old: msgspec.structs.replace(old, hooks=add(old.hooks, new)),
            )
