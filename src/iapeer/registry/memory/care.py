"""What a held memory slot means for a peer that is born, and for one that goes.

Best effort: neither birth nor removal fails because of it, and what went wrong is said loudly.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from iapeer.core.clock import SystemClock
from iapeer.core.errors import IapeerError
from iapeer.core.profile import RegistryRecord
from iapeer.core.settings import Settings
from iapeer.storage.logs import LogFile, lifecycle_record
from iapeer.storage.paths import Paths

from .changes import Changes, Entry, add, read_changes, update_changes
from .command import Job, explain, handed_on, run_job
from .lever import LEVERS, turn
from .merge import Keys
from .slot import Command, read_slot
from .trust import codex_config, forget_sections, trust_folder

Occasion = Literal["birth", "remove"]

_CODEX = "codex"


class Log(Protocol):
    """One line of lifecycle.log."""

    def __call__(self, ev: str, **fields: object) -> None:
        """Write event `ev` with its fields."""


class Cared(msgspec.Struct, frozen=True):
    """What was done, as lines for the user; `warnings` are what could not be done."""

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Visit:
    """One birth or removal: whose, why, and what there is to tell."""

    def __init__(
        self, record: RegistryRecord, occasion: Occasion, stop: threading.Event | None = None
    ) -> None:
        self.record = record
        self.occasion: Occasion = occasion
        self.stop = stop
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def cared(self) -> Cared:
        return Cared(tuple(self.lines), tuple(self.warnings))


class Care:
    """Memory of the peers of one root; blocks, so a daemon calls it in a thread."""

    def __init__(self, paths: Paths, environ: Mapping[str, str], log: Log) -> None:
        """`environ` is handed on to the provider, without secrets and who we are."""
        self._paths = paths
        self._environ = environ
        self._log = log

    def born(self, record: RegistryRecord, runtimes: tuple[str, ...]) -> Cared:
        """Do what a birth needs for those of `runtimes` that are agents, if the slot is held.

        Native memory off, the folder trusted by Codex, the provider's command. Never raises.
        """
        slot = read_slot(self._paths.memory_slot)
        agents = _agents(runtimes)
        visit = _Visit(record, "birth")
        if slot is not None and agents:
            self._turn_off(visit, agents)
            if _CODEX in agents:
                self._trust(visit)
            self._run(visit, agents, slot.provision)
        return visit.cared()

    def leaving(self, record: RegistryRecord, stop: threading.Event | None = None) -> Cared:
        """Do what a removal needs: the provider's command, then what we told Codex is taken back.

        Never raises; `stop` ends a command that still runs.
        """
        slot = read_slot(self._paths.memory_slot)
        visit = _Visit(record, "remove", stop)
        if slot is not None:
            self._run(visit, _agents(record.runtimes), slot.unprovision)
        self._take_back(visit)
        return visit.cared()

    def _turn_off(self, visit: _Visit, agents: tuple[str, ...]) -> None:
        for done in turn(self._paths, visit.record, on=False, runtimes=agents):
            if done.state == "failed":
                visit.warnings.append(
                    f"native memory of {done.runtime} could not be turned off: {done.reason}"
                )
            elif done.state == "written":
                visit.lines.append(f"native memory off: {done.path}")

    def _trust(self, visit: _Visit) -> None:
        cwd = visit.record.cwd
        try:
            done = trust_folder(codex_config(self._environ), Path(cwd))
            if done.merged.changed:
                entry = Entry(str(done.config), done.folder)
                update_changes(
                    self._paths,
                    visit.record,
                    lambda old: msgspec.structs.replace(old, trusted=add(old.trusted, (entry,))),
                )
        except IapeerError as error:
            visit.warnings.append(f"codex was not told to trust {cwd}: {error.message}")
            return
        if done.refused:
            visit.warnings.append(
                f"codex does not trust {done.folder}: {done.config} says {done.refused!r}"
            )
        elif done.merged.changed:
            visit.lines.append(f"codex trust entry: {done.folder} in {done.config}")
        if done.merged.backup:
            visit.lines.append(f"codex configuration as it was: {done.merged.backup}")

    def _run(self, visit: _Visit, agents: tuple[str, ...], command: Command | None) -> None:
        if command is None:
            return
        personality = visit.record.personality
        for runtime in agents:
            values = {
                "cwd": visit.record.cwd,
                "runtime": runtime,
                "personality": personality,
                "occasion": visit.occasion,
            }
            job = Job(
                argv=command.argv(values),
                cwd=self._paths.root,
                environ=handed_on(self._environ),
            )
            ran = run_job(job, visit.stop)
            self._log(
                "memory-provision",
                identity=f"{runtime}-{personality}",
                occasion=visit.occasion,
                state=ran.state,
                exit=ran.exit,
                ms=ran.ms,
                detail=ran.detail or None,
            )
            name = "memory provision" if visit.occasion == "birth" else "memory unprovision"
            if ran.state == "ok":
                visit.lines.append(f"{name}: {runtime} ok")
            else:
                visit.warnings.append(f"{name.upper()} of {runtime}: {explain(ran)}")

    def _take_back(self, visit: _Visit) -> None:
        changes = read_changes(self._paths, visit.record)
        try:
            for file in dict.fromkeys(e.file for e in (*changes.trusted, *changes.hooks)):
                _clean(Path(file), changes, visit)
            if changes != Changes():
                update_changes(self._paths, visit.record, lambda _old: Changes())
        except IapeerError as error:
            visit.warnings.append(f"codex still trusts {visit.record.cwd}: {error.message}")


def lifecycle_log(settings: Settings) -> Log:
    """Return a writer of lifecycle.log for a process that is no daemon."""
    size, keep = settings.lifecycle_log_max_bytes, settings.lifecycle_log_keep
    file, clock = LogFile(Paths(settings.root).lifecycle_log, size, keep), SystemClock()

    def log(ev: str, **fields: object) -> None:
        file.append(lifecycle_record(clock.now(), ev, **fields))

    return log


def _agents(runtimes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(runtime for runtime in runtimes if runtime in LEVERS)


def _clean(config: Path, changes: Changes, visit: _Visit) -> None:
    """Take our tables out of one configuration file."""
    cwd = visit.record.cwd
    folders = [entry.name for entry in changes.trusted if entry.file == str(config)]
    if folders:
        # Both names of the folder it has now: it may have been renamed since.
        folders += [cwd, os.path.realpath(cwd)]
    sections: list[Keys] = [("projects", folder) for folder in dict.fromkeys(folders)]
    if sections and forget_sections(config, sections):
        visit.lines.append(f"codex trust entry: removed from {config}")
    hooks = [entry.name for entry in changes.hooks if entry.file == str(config)]
    if hooks and forget_sections(config, [("hooks", "state", key) for key in hooks]):
        visit.lines.append(f"codex hooks trust: {len(hooks)} removed from {config}")
