"""The memory that an agent program keeps by itself, turned off or on for one peer's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from iapeer.core.errors import IapeerError
from iapeer.core.profile import RegistryRecord
from iapeer.storage.paths import Paths

from .changes import read_changes, update_changes
from .merge import Keys, Merge, Put, merge

LeverState = Literal["written", "already", "failed", "skipped"]


class Lever(msgspec.Struct, frozen=True):
    """Where a runtime is told: a file below the peer's folder and the key that is false for off."""

    file: str
    keys: Keys


LEVERS: Mapping[str, Lever] = {
    "claude": Lever(".claude/settings.json", ("autoMemoryEnabled",)),
    "codex": Lever(".codex/config.toml", ("features", "memories")),
}
"""The runtimes that have a memory of their own; `memory-slot.md` section 3."""


class Turned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one lever; `skipped` (runtime empty) for a peer that has none."""

    personality: str
    runtime: str
    state: LeverState
    path: str = ""
    reason: str = ""


def turn(
    paths: Paths, record: RegistryRecord, *, on: bool, runtimes: tuple[str, ...] | None = None
) -> tuple[Turned, ...]:
    """Turn the native memory of a peer off or on, for each declared runtime that has a lever.

    On removes the key, and file and folder if they were made for it and hold nothing else.
    `runtimes` restricts it to those. Never raises for a file: its state is `failed` then.
    """
    wanted = record.runtimes if runtimes is None else runtimes
    named = [runtime for runtime in wanted if runtime in LEVERS]
    if not named:
        return (Turned(personality=record.personality, runtime="", state="skipped"),)
    return tuple(_turn(paths, record, runtime, on=on) for runtime in named)


def _turn(paths: Paths, record: RegistryRecord, runtime: str, *, on: bool) -> Turned:
    lever = LEVERS[runtime]
    path = Path(record.cwd) / lever.file
    state: LeverState = "failed"
    reason = ""
    try:
        if not Path(record.cwd).is_dir():
            reason = f"the folder {record.cwd} does not exist"
        else:
            did = _on(paths, record, path, lever) if on else _off(paths, record, path, lever)
            state = "written" if did else "already"
    except IapeerError as error:
        reason = error.message
    return Turned(
        personality=record.personality,
        runtime=runtime,
        state=state,
        path=str(path),
        reason=reason,
    )


def _off(paths: Paths, record: RegistryRecord, path: Path, lever: Lever) -> bool:
    done = merge(Merge(path=path, put=(Put(lever.keys, False),)))
    if done.made:
        new = tuple(map(str, done.made))
        update_changes(
            paths,
            record,
            lambda old: msgspec.structs.replace(old, made=tuple(dict.fromkeys((*old.made, *new)))),
        )
    return done.changed


def _on(paths: Paths, record: RegistryRecord, path: Path, lever: Lever) -> bool:
    made = read_changes(paths, record).made
    done = merge(Merge(path=path, drop=(lever.keys,), is_ours=str(path) in made))
    ours = {str(path), str(path.parent)}.intersection(made)
    if not ours:
        return done.changed
    if str(path.parent) in ours and not path.exists():
        with contextlib.suppress(OSError):  # it has other content by now
            path.parent.rmdir()
    update_changes(
        paths,
        record,
        lambda old: msgspec.structs.replace(
            old, made=tuple(name for name in old.made if name not in ours)
        ),
    )
    return done.changed
