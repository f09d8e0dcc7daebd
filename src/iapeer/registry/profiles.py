"""Local profiles on disk: reading, changing and the birth of a peer.

Order of locks: the registry's before a profile's, never the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec

from iapeer.core.errors import (
    IapeerError,
    InvalidInput,
    PeerExists,
    PeerNotFound,
    ProfileError,
    StorageError,
)
from iapeer.core.identity import INFRA_RUNTIMES, RESERVED_NAMES, default_intelligence
from iapeer.core.ids import new_uid
from iapeer.core.names import is_valid_name, is_valid_runtime, normalize_name
from iapeer.core.profile import (
    DESCRIPTION_MAX,
    Profile,
    ProfileChange,
    RegistryRecord,
    project,
)
from iapeer.registry.index import Registry, refuse_taken
from iapeer.storage.atomic import ensure_private_dir, remove_file, write_bytes
from iapeer.storage.jsonfile import MISSING, dump_json, parse_json, read_json
from iapeer.storage.locks import hold
from iapeer.storage.paths import PROFILE_NAME, peer_dir, profile_path
from iapeer.storage.stamped import Stamped

_T = TypeVar("_T")

LOCK_TIMEOUT_S = 5.0
"""Longest wait for another writer of the same profile."""

_AGENT_MARKERS = {"claude": ".claude", "codex": ".codex"}
"""Folders an agent CLI leaves in a project: the peer that lives there can run it."""


class BirthSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the peer of one folder; empty fields keep or take the default.

    `personality` is the name the caller expects, `env_personality` the value of PEER_PERSONALITY;
    both must agree with the folder's name.
    """

    cwd: Path
    runtime: str
    personality: str = ""
    env_personality: str = ""
    description: str = ""
    intelligence: str = ""
    initial_prompt: str = ""


class Birth(msgspec.Struct, frozen=True):
    """The peer of a folder after `ensure_profile`; `created` when it had no profile before."""

    profile: Profile
    record: RegistryRecord
    created: bool
    warnings: tuple[str, ...] = ()


def read_profile(cwd: Path) -> Profile:
    """Return the profile of the peer that lives in `cwd`.

    Raises ProfileError naming the file; its `code` is `missing` when there is none.
    """
    path = profile_path(cwd)
    try:
        raw = read_json(path)
    except StorageError as error:
        code = MISSING if error.code == MISSING else None
        raise ProfileError(error.message, hint=error.hint, code=code) from error
    return Profile.from_json(raw, str(path))


def is_ephemeral(cwd: str) -> bool:
    """Whether each task of the peer that lives in `cwd` gets a session of its own.

    A profile that can't be read says nothing of the kind.
    """
    try:
        return _PROFILES.of(_file_of(cwd)).wake_policy == "ephemeral"
    except (OSError, StorageError, ProfileError):
        return False


@lru_cache(maxsize=4096)
def _file_of(cwd: str) -> Path:
    return profile_path(Path(cwd))


def _profile_of(data: bytes, path: Path) -> Profile:
    return Profile.from_json(parse_json(data, path), str(path))


_PROFILES = Stamped(_profile_of, most=4096)
"""Each accepted message asks for its sender's."""


def find_profile(cwd: Path) -> Profile | None:
    """Return the profile in `cwd`, None when there is none.

    Raises ProfileError for one that can't be read.
    """
    try:
        return read_profile(cwd)
    except ProfileError as error:
        if error.code == MISSING:
            return None
        raise


def write_profile(cwd: Path, change: ProfileChange) -> Profile:
    """Merge `change` into the profile of `cwd` and return the result; foreign keys stay.

    Raises ProfileError without a readable profile, InvalidInput, LockBusy, StorageError.
    """
    return update_profile(cwd, lambda profile: profile.merged(change))


def update_profile(cwd: Path, edit: Callable[[Profile], Profile]) -> Profile:
    """Read, edit and write the profile of `cwd` under its lock; a profile without uid gets one.

    Raises ProfileError without a readable profile, LockBusy, StorageError, and what `edit` raises.
    """
    if not profile_path(cwd).exists():
        raise ProfileError(f"{profile_path(cwd)} does not exist", code=MISSING)
    with _profile_lock(cwd):
        return _write(cwd, edit(read_profile(cwd)))


def ensure_profile(
    registry: Registry,
    spec: BirthSpec,
    before_write: Callable[[Profile], None] | None = None,
) -> Birth:
    """Give the folder its peer: a new one, or the present one with the asked runtimes added.

    The name is the folder's. `before_write` is called when all checks have passed and before
    anything is written; an error of its own leaves no half-made peer (a service unit of an
    always-on peer is installed there). Profile and index change together or not at all.

    Raises InvalidInput, PeerExists, ProfileError, RegistryError, LockBusy, StorageError.
    """
    cwd = full_path(spec.cwd)
    if not is_valid_runtime(spec.runtime):
        raise InvalidInput(f"invalid runtime {spec.runtime!r}")
    existing = find_profile(cwd)
    name = _checked_name(spec, cwd, existing)
    refuse_taken(registry.snapshot().get(name), str(cwd))
    if before_write is not None:
        before_write(_wanted(spec, cwd, name, existing))
    path = profile_path(cwd)
    undo: list[Callable[[], object]] = []

    def change(records: dict[str, RegistryRecord]) -> tuple[Profile, RegistryRecord]:
        refuse_taken(records.get(name), str(cwd))
        with _profile_lock(cwd):
            old = find_profile(cwd)
            before = path.read_bytes() if old is not None else None
            undo.append(lambda: _restore(path, before))
            profile = _write(cwd, _own_uid(_wanted(spec, cwd, name, old), records))
        records[name] = project(profile, str(cwd), records.get(name))
        return profile, records[name]

    profile, record = _all_or_nothing(registry, change, undo)
    return Birth(profile, record, existing is None, _warnings(profile))


def change_peer(
    registry: Registry, personality: str, edit: Callable[[Profile], Profile]
) -> RegistryRecord:
    """Edit the profile of a registered peer; profile and index change together or not at all.

    Raises PeerNotFound, ProfileError (also for a folder that another peer has moved into),
    RegistryError, LockBusy, StorageError, and what `edit` raises.
    """
    registry.snapshot().require(personality)
    undo: list[Callable[[], object]] = []

    def change(records: dict[str, RegistryRecord]) -> RegistryRecord:
        record = records.get(personality)
        if record is None:
            raise PeerNotFound(f"peer {personality!r} has just been removed")
        cwd = Path(record.cwd)
        read_profile(cwd)  # before the lock, whose folder would make a lost one anew
        with _profile_lock(cwd):
            old = read_profile(cwd)
            if old.personality != personality:
                raise ProfileError(
                    f"{profile_path(cwd)} is of peer {old.personality!r}, not of {personality!r}",
                    hint="iapeer verify shows what does not fit",
                )
            before = profile_path(cwd).read_bytes()
            undo.append(lambda: _restore(profile_path(cwd), before))
            profile = _write(cwd, edit(old))
        records[personality] = project(profile, record.cwd, record)
        return records[personality]

    return _all_or_nothing(registry, change, undo)


def discover_runtimes(cwd: Path) -> tuple[str, ...]:
    """Return the runtimes a folder shows signs of, in a stable order."""
    found = [runtime for runtime, marker in _AGENT_MARKERS.items() if (cwd / marker).is_dir()]
    own = peer_dir(cwd) / "runtimes"
    if own.is_dir():
        found += sorted(entry.name for entry in own.iterdir() if entry.is_dir())
    return tuple(runtime for runtime in dict.fromkeys(found) if is_valid_runtime(runtime))


def reindex_peer(registry: Registry, cwd: Path) -> RegistryRecord:
    """Project the profile of `cwd` into the index and return the record.

    Raises ProfileError, PeerExists when the name belongs to another folder, RegistryError.
    """
    profile = read_profile(cwd)
    folder = str(full_path(cwd))

    def change(records: dict[str, RegistryRecord]) -> RegistryRecord:
        previous = records.get(profile.personality)
        refuse_taken(previous, folder)
        records[profile.personality] = project(profile, folder, previous)
        return records[profile.personality]

    return registry.change(change)


def ensure_uid(registry: Registry, record: RegistryRecord) -> RegistryRecord:
    """Return the record with a uid: the peer of a profile from before it gets one now.

    Raises ProfileError, RegistryError, LockBusy, StorageError.
    """
    if record.uid:
        return record
    update_profile(Path(record.cwd), lambda profile: profile)
    return reindex_peer(registry, Path(record.cwd))


def full_path(path: Path) -> Path:
    """Return the path from the root, links kept: a peer behind a link is named after the link."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def checked_name(text: str) -> str:
    """Return `text` as the name of a peer.

    Raises InvalidInput when nothing valid is left of it or the name is reserved.
    """
    name = normalize_name(text)
    if not is_valid_name(name):
        raise InvalidInput(
            f"{text!r} gives no valid peer name ({name!r})",
            hint="a name has 1-32 of a-z, 0-9 and hyphens and begins with a letter",
        )
    if name in RESERVED_NAMES:
        raise InvalidInput(f"the name {name!r} is reserved", hint="choose another name")
    return name


def _checked_name(spec: BirthSpec, cwd: Path, existing: Profile | None) -> str:
    """Return the peer's name: the present profile's, else the folder's."""
    name = existing.personality if existing is not None else checked_name(cwd.name)
    if spec.personality and normalize_name(spec.personality) != name:
        if existing is not None:
            raise PeerExists(f"{cwd} already holds peer {name!r}", hint="use another folder")
        raise InvalidInput(
            f"the folder {cwd.name!r} makes a peer {name!r}, not {spec.personality!r}",
            hint="a peer is named after its folder: rename the folder",
        )
    if spec.env_personality and normalize_name(spec.env_personality) != name:
        raise InvalidInput(
            f"PEER_PERSONALITY={spec.env_personality!r} does not match the peer {name!r} of {cwd}",
            hint="unset PEER_PERSONALITY",
        )
    return name


def _wanted(spec: BirthSpec, cwd: Path, name: str, existing: Profile | None) -> Profile:
    """Return the profile to write; what exists is added to, its default runtime stays."""
    intelligence = spec.intelligence
    if existing is None:
        existing = Profile(
            personality=name,
            default_runtime=spec.runtime,
            runtimes=(spec.runtime,),
            intelligence=default_intelligence(spec.runtime),
        )
    elif existing.default_runtime == spec.runtime and spec.runtime in INFRA_RUNTIMES:
        intelligence = intelligence or default_intelligence(spec.runtime).value
    change = ProfileChange(
        runtimes=(spec.runtime, *discover_runtimes(cwd)),
        description=spec.description,
        intelligence=intelligence,
        initial_prompt=spec.initial_prompt,
    )
    return existing.merged(change)


def _own_uid(profile: Profile, records: dict[str, RegistryRecord]) -> Profile:
    """Return the profile with a uid no other peer has: a copied folder brings the original's."""
    taken = {record.uid for record in records.values() if record.personality != profile.personality}
    if profile.uid and profile.uid not in taken:
        return profile
    return msgspec.structs.replace(profile, uid=new_uid())


def _profile_lock(cwd: Path) -> AbstractContextManager[None]:
    state = peer_dir(cwd) / "state"
    # Only when missing: a checked-out project may bring its own folder with a wider mode.
    if not state.exists():
        ensure_private_dir(state)
    lock = state / f"{PROFILE_NAME}.lock"
    return hold(lock, LOCK_TIMEOUT_S, f"the profile of {cwd}")


def _write(cwd: Path, profile: Profile) -> Profile:
    """Write a profile unless the file says just that; return it as a reader will see it."""
    if not profile.uid:
        profile = msgspec.structs.replace(profile, uid=new_uid())
    path = profile_path(cwd)
    raw = profile.to_json()
    if not path.exists() or read_json(path) != raw:
        write_bytes(path, dump_json(raw))
    return Profile.from_json(raw, str(path))


def _all_or_nothing(
    registry: Registry,
    change: Callable[[dict[str, RegistryRecord]], _T],
    undo: list[Callable[[], object]],
) -> _T:
    """Change the index; `undo`, which the change fills, takes a profile back that it wrote."""
    try:
        return registry.change(change)
    except IapeerError:
        for step in undo:
            step()
        raise


def _restore(path: Path, before: bytes | None) -> None:
    if before is None:
        remove_file(path)
    else:
        write_bytes(path, before)


def _warnings(profile: Profile) -> tuple[str, ...]:
    length = len(profile.description)
    if length <= DESCRIPTION_MAX:
        return ()
    return (f"description has {length} characters, others see the first {DESCRIPTION_MAX}",)
