"""Plug-ins of agent programs for a peer."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from iapeer.core.errors import InvalidInput
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.registry.caller import caller_for_process
from iapeer.registry.index import Registry
from iapeer.registry.plugins import (
    PLUGIN_RUNTIMES,
    Enabled,
    Place,
    SetUp,
    enable_plugin,
    parse_plugin,
    set_up,
)
from iapeer.runtimes.catalog import Catalog
from iapeer.storage.paths import Paths

from . import output
from .context import is_sandbox, load_settings
from .grammar import Call


def enable(call: Call) -> int:
    """Enable a plug-in on each runtime of a peer whose program knows plug-ins."""
    plugin = parse_plugin(call.need("plugin"))
    settings = load_settings()
    record = _record(call, settings)
    cwd = Path(record.cwd)
    if not cwd.is_dir():
        raise InvalidInput(
            f"the folder {cwd} does not exist", hint="restore it, or remove the peer"
        )
    runtimes = [runtime for runtime in record.runtimes if runtime in PLUGIN_RUNTIMES]
    if not runtimes:
        raise InvalidInput(
            f"{record.personality!r} has no runtime with plug-ins",
            hint=f"runtimes with plug-ins: {', '.join(PLUGIN_RUNTIMES)}",
        )
    place = Place(personality=record.personality, cwd=cwd, environ=dict(os.environ))
    catalog = Catalog.load(settings.runtimes_dir)
    done = []
    for runtime in runtimes:
        done.append(enable_plugin(plugin, place, runtime, _program(catalog, runtime)))
        if not call.has("json"):
            _tell(done[-1])
    setup = SetUp("skipped") if call.has("no-setup") else _set_up(done, place)
    if call.has("json"):
        output.emit(
            {
                "personality": record.personality,
                "plugin": plugin.id,
                "runtimes": [msgspec.to_builtins(each) for each in done],
                "setup": msgspec.to_builtins(setup),
            }
        )
    else:
        output.say(f"setup: {setup.state}" + (f" — {setup.detail}" if setup.detail else ""))
    failed = any(each.state == "failed" for each in done) or setup.state == "failed"
    return 1 if failed else 0


def _record(call: Call, settings: Settings) -> RegistryRecord:
    """Return the named peer, else the one that lives here."""
    snapshot = Registry(Paths(settings.root), sandbox=is_sandbox()).snapshot()
    name = call.get("peer")
    if name is not None:
        return snapshot.require(name)
    return caller_for_process(os.environ, Path.cwd(), snapshot).record


def _program(catalog: Catalog, runtime: str) -> str:
    """Return the program of a runtime: its manifest's, else the one of the same name."""
    if runtime in catalog.ids():
        argv = catalog.get(runtime).launch.argv
        if argv and "{" not in argv[0]:
            return argv[0]
    return runtime


def _set_up(done: list[Enabled], place: Place) -> SetUp:
    """Run the plug-in's set-up once, from the first place it was put to."""
    for each in done:
        if each.folder:
            return set_up(Path(each.folder), place)
    return SetUp("skipped")


def _tell(each: Enabled) -> None:
    output.say(f"{each.runtime}: {each.state}" + (f" — {each.detail}" if each.detail else ""))
