"""The runtimes of existing peers: one more, or another default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from iapeer.core.errors import IapeerError
from iapeer.core.identity import Intelligence
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.registry import declared
from iapeer.registry.declared import Declared
from iapeer.registry.index import Registry
from iapeer.runtimes.catalog import Catalog
from iapeer.storage.paths import Paths

from . import output
from .choose import choose
from .context import is_sandbox, load_settings, named_records
from .grammar import Call

_Change = Callable[[Registry, str, str], Declared]


def add_runtime(call: Call) -> int:
    """Let peers run on one more agent program."""
    return _for_each(call, declared.add_runtime)


def default_runtime(call: Call) -> int:
    """Let peers answer on another one of their runtimes."""
    return _for_each(call, declared.set_default_runtime)


def _for_each(call: Call, change: _Change) -> int:
    """Do `change` to every named peer; one that fails spares the others. Returns 1 if one did."""
    runtime, settings = call.need("runtime"), load_settings()
    records = named_records(call)
    declared.check_no_infra(runtime)
    choose(Catalog.load(settings.runtimes_dir), Path(), runtime)
    registry = Registry(Paths(settings.root), sandbox=is_sandbox())
    shown: list[dict[str, Any]] = []
    for record in records:
        did = _one(registry, record, runtime, change, is_for_all=call.has("all"))
        shown.append({"personality": record.personality, "runtime": runtime, **did})
        if not call.has("json"):
            reason = f" — {did['reason']}" if did.get("reason") else ""
            output.say(f"{record.personality} ({runtime}): {did['action']}{reason}")
        if did["action"] == "added":
            _care(settings, record, runtime)
    if call.has("json"):
        output.emit(shown)
    elif not records:
        output.say("no peers registered")
    return 1 if any(did["action"] == "failed" for did in shown) else 0


def _one(
    registry: Registry, record: RegistryRecord, runtime: str, change: _Change, *, is_for_all: bool
) -> dict[str, str]:
    """Return what was done about one peer, and why nothing was."""
    name = record.personality
    if is_for_all and record.intelligence is not Intelligence.ARTIFICIAL:
        # "All" means agents: a person or a program that gets an agent program would be woken.
        return {"action": "skipped-infra-peer", "reason": "it is no agent"}
    try:
        action = change(registry, name, runtime).action
    except IapeerError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return {"action": "failed", "reason": f"{error.message}{hint}"}
    if action == "refused-undeclared-runtime":
        return {"action": action, "reason": f"first: iapeer add-runtime {runtime} --peer {name}"}
    if action == "skipped-infra-peer":
        return {"action": action, "reason": "the service manager holds it"}
    return {"action": action}


def _care(settings: Settings, record: RegistryRecord, runtime: str) -> None:
    """Do what a held memory slot means for the new runtime."""
    from .memory import make_care, warn

    cared = make_care(settings).born(record, (runtime,))
    for line in cared.lines:
        output.warn(line)
    warn(cared)
