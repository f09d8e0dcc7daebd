"""Making, renaming and removing peers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core import env
from iapeer.core.errors import DaemonDown, IapeerError
from iapeer.core.identity import Intelligence
from iapeer.core.profile import Profile
from iapeer.core.settings import Settings
from iapeer.registry import admin
from iapeer.registry.index import Registry
from iapeer.registry.memory.care import Cared
from iapeer.registry.profiles import Birth, BirthSpec, checked_name, find_profile, full_path
from iapeer.runtimes.catalog import Catalog
from iapeer.storage.paths import Paths, peer_dir

from . import output, wire
from .choose import choose, is_installed
from .context import is_sandbox, load_settings
from .grammar import Call

REMOVE_TIMEOUT_S = 330.0
"""A live peer is ended first, and a memory provider may take 120 s for each agent runtime."""


class _Wish(msgspec.Struct, frozen=True):
    """What a new peer of a folder is to be; `intelligence` is empty for an existing one."""

    runtime: str
    intelligence: str
    known: frozenset[str]


def create(call: Call) -> int:
    """Make a peer in a folder of its own."""
    settings = load_settings()
    paths = Paths(settings.root)
    name = checked_name(call.need("name"))
    path = call.get("path")
    cwd = full_path(Path(path).expanduser()) if path else paths.peer_home(name)
    wish = _wish(call, settings, cwd)
    spec = admin.CreateSpec(
        name=name,
        runtime=wish.runtime,
        path=cwd,
        description=call.get("description") or "",
        intelligence=wish.intelligence,
    )
    registry = Registry(paths, sandbox=is_sandbox())
    before = find_profile(cwd)
    birth = admin.create(paths, registry, spec, admin.BirthRules(known_runtimes=wish.known))
    return _born(birth, _cared(settings, birth, before), as_json=call.has("json"))


def init(call: Call) -> int:
    """Make an existing folder a peer."""
    settings = load_settings()
    cwd = full_path(Path(call.get("folder") or ".").expanduser())
    wish = _wish(call, settings, cwd)
    spec = BirthSpec(
        cwd=cwd,
        runtime=wish.runtime,
        env_personality=os.environ.get(env.PEER_PERSONALITY, ""),
        description=call.get("description") or "",
        intelligence=wish.intelligence,
    )
    registry = Registry(Paths(settings.root), sandbox=is_sandbox())
    before = find_profile(cwd)
    birth = admin.init(registry, spec, admin.BirthRules(known_runtimes=wish.known))
    return _born(birth, _cared(settings, birth, before), as_json=call.has("json"))


def remove(call: Call) -> int:
    """End and unregister a peer; one that is not there is no error."""
    name, force = call.need("peer"), call.has("force")
    try:
        path = wire.peer_path(name, "remove")
        done = wire.ask("POST", path, {"force": force}, timeout_s=REMOVE_TIMEOUT_S)["result"]
    except DaemonDown:
        from iapeer.host.offline import offline_remove

        done = offline_remove(load_settings(), name, force=force)
    except IapeerError as error:
        if error.code != "unknown_peer":
            raise
        done = {"personality": name, "action": "absent"}
    for warning in done.get("warnings") or ():
        output.warn(f"warning: {warning}")
    if call.has("json"):
        output.emit(done)
    else:
        _tell_removed(name, done)
    return 0


def _tell_removed(name: str, done: dict[str, Any]) -> None:
    if done.get("action") == "absent":
        output.say(f'"{name}" not registered — no-op')
    else:
        output.say(f'removed "{name}" from the registry')
        for line in done.get("memory") or ():
            output.say(line)
        if done.get("purged"):
            output.say(f"lifecycle state purged: {', '.join(done['purged'])}")
        if done.get("failed_messages"):
            output.say(f"undelivered messages failed: {len(done['failed_messages'])}")
        if done.get("cwd"):
            output.say(f"folder kept: {done['cwd']} (delete it yourself if you want to)")


def rename(call: Call) -> int:
    """Give a sleeping peer another name."""
    old, new = call.need("peer"), call.need("new-name")
    try:
        done = wire.ask("POST", wire.peer_path(old, "rename"), {"to": new})["result"]
    except DaemonDown:
        from iapeer.host.offline import offline_rename

        done = offline_rename(load_settings(), old, new)
    if call.has("json"):
        output.emit(done)
    else:
        output.say(f'renamed "{old}" to "{new}"')
        if done.get("cwd"):
            output.say(f"folder: {done['cwd']}")
    return 0


def _wish(call: Call, settings: Settings, cwd: Path) -> _Wish:
    """Return what the peer of `cwd` is to be; what is there already stays as it is."""
    catalog = Catalog.load(settings.runtimes_dir)
    for problem in catalog.problems:
        output.warn(f"iapeer {call.verb.name}: runtime {problem.runtime}: {problem.message}")
    asked, stated = call.get("runtime"), call.get("intelligence") or ""
    existing = find_profile(cwd)
    if existing is not None:
        # Its runtime may have lost its manifest since: that is no reason to refuse it here.
        known = frozenset({*catalog.ids(), existing.default_runtime})
        if asked is None or asked == existing.default_runtime:
            return _Wish(existing.default_runtime, stated, known)
        return _Wish(choose(catalog, cwd, asked).id, stated, known)
    spec = choose(catalog, cwd, asked)
    if not is_installed(spec):
        # Only a folder's own mark leads here: somebody used that program in it.
        output.warn(f"warning: {spec.id} is not installed: no {spec.launch.argv[0]!r} on PATH")
    return _Wish(spec.id, stated or spec.intelligence, frozenset(catalog.ids()))


def _cared(settings: Settings, birth: Birth, before: Profile | None) -> Cared:
    """Do what a held memory slot means for the runtimes that are new."""
    from .memory import make_care

    known = before.runtimes if before is not None else ()
    new = tuple(runtime for runtime in birth.record.runtimes if runtime not in known)
    return make_care(settings).born(birth.record, new)


def _born(birth: Birth, cared: Cared, *, as_json: bool) -> int:
    record = birth.record
    doctrine = str(peer_dir(Path(record.cwd)) / admin.DOCTRINE_NAME)
    for warning in birth.warnings + cared.warnings:
        output.warn(f"warning: {warning}")
    if any(warning.startswith("MEMORY") for warning in cared.warnings):
        output.warn(f"hint: iapeer memory repair --peer {record.personality}")
    if as_json:
        shown: dict[str, Any] = {
            "personality": record.personality,
            "default_runtime": record.default_runtime,
            "runtimes": list(record.runtimes),
            "intelligence": record.intelligence.value,
            "description": record.description,
            "cwd": record.cwd,
            "created": birth.created,
            "doctrine": doctrine,
        }
        if cared != Cared():
            shown["memory"] = list(cared.lines)
            shown["warnings"] = list(cared.warnings)
        output.emit(shown)
        return 0
    did = "created peer" if birth.created else "already a peer:"
    output.say(f"{did} {record.personality} ({', '.join(record.runtimes)}) in {record.cwd}")
    for line in cared.lines:
        output.say(line)
    if birth.created and record.intelligence is Intelligence.ARTIFICIAL:
        output.say(f"tell it who it is: {doctrine}")
    return 0
