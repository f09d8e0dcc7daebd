"""Making and removing peers: the part below sessions, services and agent CLIs.

What belongs to upper layers (is it live, ledger rows, service units) is passed in as a function.
`rename` lives in its own module.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerExists,
    ProfileError,
    RegistryError,
    RuntimeUnknown,
)
from iapeer.core.identity import Identity, parse_identity
from iapeer.core.names import normalize_name
from iapeer.core.profile import Profile, RegistryRecord
from iapeer.registry.index import Registry
from iapeer.registry.profiles import (
    Birth,
    BirthSpec,
    checked_name,
    ensure_profile,
    find_profile,
    full_path,
    read_profile,
)
from iapeer.registry.snapshot import FIX_HINT
from iapeer.storage.atomic import ensure_private_dir, storage_error, write_text
from iapeer.storage.paths import Paths, peer_dir

DOCTRINE_NAME = "IAPEER.md"
"""The owner's words to an agent, below the root for all peers and in a peer's folder for one."""

DOCTRINE_TEMPLATE = """\
# Peer doctrine

<!-- For the owner of this peer: write here who it is: its task, what it decides alone, what it
must never do, whom it reports to. The agent is given this file at each start, after the IAPEER.md
of the iapeer root, which is for all peers; other *.md files beside this one are added too.
Replace this comment. Delete the file to start the agent with its own default prompt. -->
"""
"""Short, because the agent reads it too until somebody fills it in."""


class CreateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A peer to make. `name` is normalised; `path` is for a place other than the default one."""

    name: str
    runtime: str
    path: Path | None = None
    description: str = ""
    intelligence: str = ""
    initial_prompt: str = ""


class BirthRules(msgspec.Struct, frozen=True):
    """What the caller knows and `create` and `init` need.

    `known_runtimes` are the ids that have a manifest; `before_write` is `ensure_profile`'s.
    """

    known_runtimes: frozenset[str]
    before_write: Callable[[Profile], None] | None = None


class RemoveRules(msgspec.Struct, frozen=True):
    """What the caller does for `remove`.

    `is_live` tells whether a session of an identity runs; `force` removes it all the same.
    `before_purge` runs when the record is gone and its state is not (memory provider, trust
    entries; it must not raise), `purge_state` forgets the ledger rows of the uid ("" if unknown).
    """

    is_live: Callable[[Identity], bool]
    purge_state: Callable[[str, RegistryRecord], None]
    before_purge: Callable[[RegistryRecord], None] | None = None
    force: bool = False


class RemoveReport(msgspec.Struct, frozen=True):
    """What `remove` did; `purged` are the names of state files, `live` the running identities."""

    personality: str
    action: Literal["removed", "absent", "refused-live"]
    cwd: str = ""
    purged: tuple[str, ...] = ()
    live: tuple[Identity, ...] = ()


def create(paths: Paths, registry: Registry, spec: CreateSpec, rules: BirthRules) -> Birth:
    """Make a peer in its own folder (`<root>/peers/<name>` unless a path is given); idempotent.

    A missing doctrine is made from a template, one that is there is never touched.

    Raises InvalidInput (bad or reserved name, path not named after the peer), RuntimeUnknown,
    PeerExists (`already holds peer`, or the name lives elsewhere), RegistryError, StorageError.
    A folder made for a peer that then was refused is taken away again.
    """
    name = checked_name(spec.name)
    require_runtime(spec.runtime, rules.known_runtimes)
    cwd = full_path(spec.path) if spec.path is not None else paths.peer_home(name)
    if normalize_name(cwd.name) != name:
        raise InvalidInput(
            f"the folder {cwd} is not named after the peer {name!r}",
            hint=f"a peer is named after its folder: give a path that ends in /{name}",
        )
    holder = find_profile(cwd)
    if holder is not None and holder.personality != name:
        raise PeerExists(
            f"{cwd} already holds peer {holder.personality!r}", hint="use another folder"
        )
    made = not cwd.exists()
    if made:
        ensure_private_dir(cwd)
    try:
        birth = ensure_profile(registry, _birth_spec(spec, cwd, name), rules.before_write)
    except IapeerError:
        if made:
            _take_away(cwd)
        raise
    _ensure_doctrine(cwd)
    return birth


def init(registry: Registry, spec: BirthSpec, rules: BirthRules) -> Birth:
    """Make the peer of an existing folder, or add a runtime to it; idempotent.

    A missing doctrine is made from a template, one that is there is never touched.

    Raises InvalidInput, RuntimeUnknown, PeerExists, ProfileError, RegistryError, StorageError.
    """
    require_runtime(spec.runtime, rules.known_runtimes)
    if not spec.cwd.is_dir():
        raise InvalidInput(f"{spec.cwd} is not a folder", hint="make it first, or iapeer create")
    birth = ensure_profile(registry, spec, rules.before_write)
    _ensure_doctrine(full_path(spec.cwd))
    return birth


def remove(paths: Paths, registry: Registry, personality: str, rules: RemoveRules) -> RemoveReport:
    """Take a peer off this host: record, launch files, ledger rows. Its folder is kept.

    A newborn namesake must inherit nothing, so all of `state/lifecycle/<runtime>-<name>.*` goes,
    also when the peer is absent: a removal that was cut short is completed by the next one.

    Raises RegistryError, LockBusy, StorageError.
    """
    snapshot = registry.snapshot()
    record = snapshot.get(personality)
    if record is None:
        for problem in snapshot.problems:
            if problem.personality == personality:
                raise RegistryError(problem.message, hint=FIX_HINT)
        return RemoveReport(personality, "absent", purged=purge_lifecycle(paths, personality))
    live = tuple(identity for identity in identities(record) if rules.is_live(identity))
    if live and not rules.force:
        return RemoveReport(personality, "refused-live", record.cwd, live=live)
    uid = record.uid or _profile_uid(record)
    registry.remove(personality)
    if rules.before_purge is not None:
        rules.before_purge(record)
    purged = purge_lifecycle(paths, personality)
    rules.purge_state(uid, record)
    return RemoveReport(personality, "removed", record.cwd, purged, live)


def identities(record: RegistryRecord) -> tuple[Identity, ...]:
    """Return the identity of each declared runtime, the default first."""
    return tuple(Identity(runtime, record.personality) for runtime in record.runtimes)


def lifecycle_files(paths: Paths, personality: str) -> tuple[Path, ...]:
    """Return `state/lifecycle/<runtime>-<personality>.*`, sorted.

    The part before the first dot must be an identity of the peer: `claude-bob2.x` is not bob's.
    """
    if not paths.lifecycle_state.is_dir():
        return ()
    found = []
    for entry in paths.lifecycle_state.iterdir():
        address, dot, _ = entry.name.partition(".")
        identity = parse_identity(address) if dot else None
        if identity is not None and identity.personality == personality:
            found.append(entry)
    return tuple(sorted(found))


def purge_lifecycle(paths: Paths, personality: str) -> tuple[str, ...]:
    """Remove all launch files and folders of a peer; return their names.

    Raises StorageError.
    """
    found = lifecycle_files(paths, personality)
    for entry in found:
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, entry, "remove") from error
    return tuple(entry.name for entry in found)


def require_runtime(runtime: str, known: frozenset[str]) -> None:
    """Refuse a runtime without a manifest.

    Raises RuntimeUnknown naming the known ones.
    """
    if runtime not in known:
        raise RuntimeUnknown(
            f"unknown runtime {runtime!r}", hint=f"known runtimes: {', '.join(sorted(known))}"
        )


def _birth_spec(spec: CreateSpec, cwd: Path, name: str) -> BirthSpec:
    return BirthSpec(
        cwd=cwd,
        runtime=spec.runtime,
        personality=name,
        description=spec.description,
        intelligence=spec.intelligence,
        initial_prompt=spec.initial_prompt,
    )


def _ensure_doctrine(cwd: Path) -> None:
    """Give the peer of `cwd` a doctrine to fill in; what is there, a dangling link too, stays."""
    path = peer_dir(cwd) / DOCTRINE_NAME
    if not path.is_symlink() and not path.exists():
        write_text(path, DOCTRINE_TEMPLATE, 0o644)


def _profile_uid(record: RegistryRecord) -> str:
    """Return the uid of a record from before it; a removed peer's profile need not be there."""
    try:
        profile = read_profile(Path(record.cwd))
    except ProfileError:
        return ""
    return profile.uid if profile.personality == record.personality else ""


def _take_away(cwd: Path) -> None:
    """Remove the folders made for a refused peer; one that has content by now stays."""
    state = peer_dir(cwd) / "state"
    with contextlib.suppress(OSError):
        for lock in state.glob("*.lock"):
            lock.unlink()
        for folder in (state, peer_dir(cwd), cwd):
            if folder.exists():
                folder.rmdir()
