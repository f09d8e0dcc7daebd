"""Plug-ins of agent programs, enabled for one peer by the programs' own commands.

Measured with Claude Code and codex-cli 0.169.0 on a local marketplace: `claude plugin list --json`
also lists what belongs to other projects (`projectPath`), as disabled; `codex plugin add` may be
repeated and enables again.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from iapeer.core import env
from iapeer.core.errors import InvalidInput, StorageError
from iapeer.registry.index import same_folder
from iapeer.registry.memory.command import Job, Ran, explain, handed_on, run_job
from iapeer.registry.memory.trust import codex_config
from iapeer.storage.jsonfile import MISSING, read_json

MARKETPLACE = "agfpd"
"""Where a plug-in is looked for whose name says no marketplace."""
SETUP_NAME = "iapeer.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

PluginState = Literal["already-enabled", "installed", "enabled", "runtime-missing", "failed"]
SetupState = Literal["absent", "called", "failed", "skipped"]


class Plugin(msgspec.Struct, frozen=True):
    """A plug-in by its name and its marketplace."""

    name: str
    marketplace: str

    @property
    def id(self) -> str:
        """Return `name@marketplace`, as both programs call it."""
        return f"{self.name}@{self.marketplace}"


class Enabled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a plug-in on one runtime; `folder` is where it was put, "" if unknown."""

    runtime: str
    state: PluginState
    detail: str = ""
    folder: str = ""


class SetUp(msgspec.Struct, frozen=True):
    """What became of the plug-in's own set-up command."""

    state: SetupState
    detail: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The peer a plug-in is enabled for."""

    personality: str
    cwd: Path
    environ: Mapping[str, str]


class _Found(msgspec.Struct, frozen=True):
    """What a program lists of the plug-in."""

    is_enabled: bool
    scope: str = ""
    folder: str = ""


class _Refused(Exception):
    """The program did not do what it was asked; the text is its own."""


def parse_plugin(text: str) -> Plugin:
    """Return the plug-in that `name` or `name@marketplace` means.

    Raises InvalidInput.
    """
    name, at, marketplace = text.partition("@")
    market = marketplace if at else MARKETPLACE
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(market):
        raise InvalidInput(
            f"{text!r} is no plug-in", hint="expected <name> or <name>@<marketplace>"
        )
    return Plugin(name, market)


def enable_plugin(plugin: Plugin, place: Place, runtime: str, program: str) -> Enabled:
    """Install and enable a plug-in for a peer's runtime by `program`; blocks.

    After a refusal the marketplace is refreshed and all is tried once more.
    """
    found = shutil.which(program, path=place.environ.get("PATH"))
    if found is None:
        detail = f"no program {program!r} on PATH"
        return Enabled(runtime=runtime, state="runtime-missing", detail=detail)
    agent = _AGENTS[runtime](plugin, place, found)
    try:
        try:
            return agent.enable()
        except _Refused:
            agent.refresh()
            return agent.enable()
    except _Refused as error:
        return Enabled(runtime=runtime, state="failed", detail=str(error))


def set_up(folder: Path, place: Place) -> SetUp:
    """Run what the plug-in in `folder` names as `setup` in its `iapeer.json`; blocks.

    It is one program's name, or `command` with `args`; a relative path is taken from the
    plug-in's folder. It runs in the peer's folder and is told the peer's name and folder.
    """
    try:
        argv = _setup_argv(folder, place)
    except (StorageError, InvalidInput) as error:
        return SetUp("failed", error.message)
    if not argv:
        return SetUp("absent")
    told = {env.SETUP_PERSONALITY: place.personality, env.SETUP_CWD: str(place.cwd)}
    environ = {**handed_on(place.environ), **told}
    ran = run_job(Job(argv=argv, cwd=place.cwd, environ=environ))
    return SetUp("called") if ran.state == "ok" else SetUp("failed", explain(ran))


class _Agent:
    """One agent program and its commands about plug-ins."""

    REFRESH = ""

    def __init__(self, plugin: Plugin, place: Place, program: str) -> None:
        self._plugin = plugin
        self._place = place
        self._program = program

    def enable(self) -> Enabled:
        """Raises _Refused."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Fetch the marketplace anew; a refusal is told by what is tried after it."""
        self._run("plugin", "marketplace", self.REFRESH, self._plugin.marketplace)

    def _run(self, *words: str) -> Ran:
        environ = handed_on(self._place.environ)
        return run_job(Job(argv=(self._program, *words), cwd=self._place.cwd, environ=environ))

    def _ask(self, *words: str) -> bytes:
        ran = self._run(*words)
        if ran.state != "ok":
            raise _Refused(f"{' '.join(words)}: {explain(ran)}")
        return ran.output

    def _json(self, *words: str) -> Any:
        try:
            return json.loads(self._ask(*words))
        except ValueError:
            raise _Refused(f"{' '.join(words)}: the answer is no JSON") from None


class _Claude(_Agent):
    REFRESH = "update"

    def enable(self) -> Enabled:
        before = self._find()
        if before is not None and before.is_enabled:
            return self._done("already-enabled", before)
        if before is None:
            self._ask("plugin", "install", self._plugin.id, "--scope", "project")
        now = before or self._find()
        if now is None:
            raise _Refused(f"{self._plugin.id} is not listed after its installation")
        if not now.is_enabled:
            self._ask("plugin", "enable", self._plugin.id, "--scope", now.scope or "project")
        return self._done("installed" if before is None else "enabled", now)

    def _find(self) -> _Found | None:
        """Return what counts in the peer's folder: another project's entry does not."""
        listed = self._json("plugin", "list", "--json")
        for entry in listed if isinstance(listed, list) else ():
            if not isinstance(entry, dict) or entry.get("id") != self._plugin.id:
                continue
            project = entry.get("projectPath")
            if project is None or same_folder(str(project), str(self._place.cwd)):
                return _Found(
                    entry.get("enabled") is True,
                    str(entry.get("scope") or ""),
                    str(entry.get("installPath") or ""),
                )
        return None

    def _done(self, state: PluginState, found: _Found) -> Enabled:
        return Enabled(runtime="claude", state=state, folder=found.folder)


class _Codex(_Agent):
    REFRESH = "upgrade"

    def enable(self) -> Enabled:
        before = self._find()
        if before is not None and before.is_enabled:
            return Enabled(runtime="codex", state="already-enabled", folder=before.folder)
        self._ask("plugin", "add", self._plugin.id)
        now = self._find()
        if now is None or not now.is_enabled:
            raise _Refused(f"{self._plugin.id} is not enabled after its installation")
        state: PluginState = "installed" if before is None else "enabled"
        return Enabled(runtime="codex", state=state, folder=now.folder)

    def _find(self) -> _Found | None:
        answer = self._json("plugin", "list", "--json")
        listed = answer.get("installed") if isinstance(answer, dict) else answer
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and entry.get("pluginId") == self._plugin.id:
                version = str(entry.get("version") or "")
                return _Found(entry.get("enabled") is True, folder=self._folder(version))
        return None

    def _folder(self, version: str) -> str:
        """Return where Codex puts a plug-in; the list tells only where it came from."""
        cache = codex_config(self._place.environ).parent / "plugins" / "cache"
        return str(cache / self._plugin.marketplace / self._plugin.name / version)


_AGENTS: Mapping[str, type[_Agent]] = {"claude": _Claude, "codex": _Codex}
PLUGIN_RUNTIMES = tuple(_AGENTS)
"""The runtimes whose programs know plug-ins."""


def _setup_argv(folder: Path, place: Place) -> list[str]:
    """Return the words of the set-up command, none without one.

    Raises StorageError, InvalidInput.
    """
    path = folder / SETUP_NAME
    try:
        raw = read_json(path)
    except StorageError as error:
        if error.code == MISSING:
            return []
        raise
    setup = raw.get("setup") if isinstance(raw, dict) else None
    if setup is None and isinstance(raw, dict):
        return []
    command, args = (
        (setup.get("command"), setup.get("args", []))
        if isinstance(setup, dict)
        else (
            setup,
            [],
        )
    )
    if not isinstance(command, str) or not command.strip() or not isinstance(args, list):
        raise InvalidInput(f"{path}: setup must be a program or {{command, args}}")
    if not all(isinstance(arg, str) for arg in args):
        raise InvalidInput(f"{path}: the args of setup must be strings")
    own = folder / command
    if own.is_file():
        return [str(own), *args]
    return [shutil.which(command, path=place.environ.get("PATH")) or command, *args]
