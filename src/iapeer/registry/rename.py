"""Renaming a peer: folder, profile, index, launch files and ledger together or not at all.

A journal file says what is under way, so that a process killed in between leaves a rename that
`recover_rename` finishes or undoes. The index decides: once it has the new name the rename has
happened and is finished, before that it is undone. Therefore launch files and ledger change only
after the index and are put back before it. Every step may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec

from iapeer.core.errors import (
    InvalidInput,
    PeerExists,
    PeerLive,
    PeerNotFound,
    ProfileError,
    StorageError,
)
from iapeer.core.identity import Identity
from iapeer.core.names import normalize_name
from iapeer.core.profile import ProfileChange, RegistryRecord, project
from iapeer.registry.admin import identities, lifecycle_files, purge_lifecycle
from iapeer.registry.index import Registry
from iapeer.registry.profiles import (
    checked_name,
    find_profile,
    read_profile,
    update_profile,
    write_profile,
)
from iapeer.registry.snapshot import FIX_HINT, RegistrySnapshot
from iapeer.storage.atomic import (
    ensure_private_dir,
    remove_file,
    storage_error,
    sync_dir,
    write_bytes,
)
from iapeer.storage.faults import fault
from iapeer.storage.jsonfile import MISSING, dump_json, read_json
from iapeer.storage.locks import hold
from iapeer.storage.paths import Paths

LOCK_TIMEOUT_S = 10.0
"""Longest wait for another rename of this root."""

RenameState = Callable[[str, str, str], None]
"""`(uid, old, new)`: give the ledger rows of a peer its new name. May be called twice."""


class RenameRules(msgspec.Struct, frozen=True):
    """What the caller does for `rename`: tell whether a session runs, rename the ledger's rows."""

    is_live: Callable[[Identity], bool]
    rename_state: RenameState


class RenameReport(msgspec.Struct, frozen=True):
    """What came of a rename; `cwd` is where the peer lives now."""

    old: str
    new: str
    cwd: str
    action: Literal["renamed", "finished", "undone"]


class _Journal(msgspec.Struct, frozen=True):
    """What is under way; the file is written before the first step and removed after the last."""

    old: str
    new: str
    uid: str
    old_cwd: str
    new_cwd: str
    version: int = 1


def rename(
    paths: Paths, registry: Registry, old: str, new: str, rules: RenameRules
) -> RenameReport:
    """Give a peer another name; its ledger rows stay its own, they key on the uid.

    The folder is renamed when it is the default home or named after the peer. On any failure
    everything is put back and the error raised; should even that fail, the journal stays for
    `recover_rename`.

    Raises InvalidInput, PeerNotFound, PeerExists, PeerLive, ProfileError, RegistryError,
    LockBusy, StorageError.
    """
    new = checked_name(new)
    with _lock(paths):
        if journal_path(paths).exists():
            raise StorageError(
                f"an interrupted rename is in the way ({journal_path(paths)})",
                hint="restart the daemon, which finishes or undoes it",
            )
        journal = _prepare(paths, registry, (old, new), rules.is_live)
        # Left by a peer that once had the name; whatever is there later is this peer's own.
        purge_lifecycle(paths, new)
        write_bytes(journal_path(paths), dump_json(msgspec.to_builtins(journal)))
        fault("rename.journal")
        try:
            _forward(paths, registry, journal, rules.rename_state)
        except BaseException:
            _backward(paths, registry, journal, rules.rename_state)
            remove_file(journal_path(paths))
            raise
        fault("rename.done")
        remove_file(journal_path(paths))
    return RenameReport(old, new, journal.new_cwd, "renamed")


def recover_rename(
    paths: Paths, registry: Registry, rename_state: RenameState
) -> RenameReport | None:
    """Finish or undo a rename that was cut short; None when there was none.

    To be called at start, before anything reads a peer's state.

    Raises StorageError (also for a journal that can't be read), ProfileError, RegistryError,
    LockBusy; the journal then stays.
    """
    if not journal_path(paths).exists():
        return None
    with _lock(paths):
        journal = _read_journal(paths)
        if journal is None:
            return None
        if _has_happened(registry.snapshot(), journal):
            _forward(paths, registry, journal, rename_state)
            report = RenameReport(journal.old, journal.new, journal.new_cwd, "finished")
        else:
            _backward(paths, registry, journal, rename_state)
            report = RenameReport(journal.old, journal.new, journal.old_cwd, "undone")
        remove_file(journal_path(paths))
    return report


def journal_path(paths: Paths) -> Path:
    """Return the journal: there while a rename is under way or was cut short."""
    return paths.state / "rename.json"


def _prepare(
    paths: Paths,
    registry: Registry,
    names: tuple[str, str],
    is_live: Callable[[Identity], bool],
) -> _Journal:
    """Check everything that can be checked, without a change but a missing uid."""
    old, new = names
    snapshot = registry.snapshot()
    record = snapshot.require(old)
    if new == old:
        raise InvalidInput(f"peer {old!r} already has that name")
    if snapshot.get(new) is not None:
        raise PeerExists(f"peer {new!r} already exists", hint="choose another name")
    live = [identity.address for identity in identities(record) if is_live(identity)]
    if live:
        raise PeerLive(f"peer {old!r} is live ({', '.join(live)})", hint=f"iapeer stop {old}")
    cwd = Path(record.cwd)
    if read_profile(cwd).personality != old:
        raise ProfileError(f"the profile in {cwd} is not that of peer {old!r}", hint=FIX_HINT)
    profile = write_profile(cwd, ProfileChange())
    if record.uid not in {"", profile.uid}:
        raise ProfileError(f"index and profile of peer {old!r} have different uids", hint=FIX_HINT)
    is_named_after = cwd == paths.peer_home(old) or normalize_name(cwd.name) == old
    new_cwd = cwd.with_name(new) if is_named_after else cwd
    if new_cwd != cwd and new_cwd.exists():
        raise PeerExists(f"{new_cwd} already exists", hint="move it away, or choose another name")
    return _Journal(old, new, profile.uid, str(cwd), str(new_cwd))


def _forward(
    paths: Paths, registry: Registry, journal: _Journal, rename_state: RenameState
) -> None:
    old, new = journal.old, journal.new
    _move_folder(journal, journal.new_cwd)
    fault("rename.folder")

    def change(records: dict[str, RegistryRecord]) -> None:
        _rewrite_profile(journal, new)
        fault("rename.profile")
        _rename_record(records, journal)

    registry.change(change)
    fault("rename.registry")
    _rename_launch_files(paths, old, new)
    fault("rename.launch_files")
    rename_state(journal.uid, old, new)
    fault("rename.state")


def _backward(
    paths: Paths, registry: Registry, journal: _Journal, rename_state: RenameState
) -> None:
    old, new = journal.old, journal.new
    if _has_happened(registry.snapshot(), journal):
        rename_state(journal.uid, new, old)
        _rename_launch_files(paths, new, old)
        fault("rename.undo_launch_files")

        def change(records: dict[str, RegistryRecord]) -> None:
            _rewrite_profile(journal, old)
            renamed = records.pop(new)
            records[old] = msgspec.structs.replace(renamed, personality=old, cwd=journal.old_cwd)

        registry.change(change)
        fault("rename.undo_registry")
    _rewrite_profile(journal, old)
    _move_folder(journal, journal.old_cwd)


def _has_happened(snapshot: RegistrySnapshot, journal: _Journal) -> bool:
    """Tell whether the index holds this peer, not a namesake, under its new name."""
    record = snapshot.get(journal.new)
    return record is not None and record.uid == journal.uid


def _rename_record(records: dict[str, RegistryRecord], journal: _Journal) -> None:
    """Put the record under its new name; in a repeated run it is there already."""
    present = records.get(journal.new)
    if present is not None:
        if present.uid == journal.uid:
            return
        raise PeerExists(f"peer {journal.new!r} already exists", hint="choose another name")
    previous = records.pop(journal.old, None)
    if previous is None:
        raise PeerNotFound(f"peer {journal.old!r} is no longer registered")
    records[journal.new] = project(read_profile(Path(journal.new_cwd)), journal.new_cwd, previous)


def _folder(journal: _Journal) -> Path | None:
    """Return where the peer lives now, told by the uid in its profile; None when it is gone."""
    for folder in (Path(journal.new_cwd), Path(journal.old_cwd)):
        profile = find_profile(folder)
        if profile is not None and profile.uid == journal.uid:
            return folder
    return None


def _move_folder(journal: _Journal, place: str) -> None:
    """Bring the peer's folder to `place`, if it is not there."""
    folder, target = _folder(journal), Path(place)
    if folder is None or folder == target:
        return
    if target.exists():
        raise PeerExists(f"{target} already exists", hint="move it away")
    try:
        folder.rename(target)
        sync_dir(target.parent)
    except OSError as error:
        raise storage_error(error, folder, f"rename to {target.name}") from error


def _rewrite_profile(journal: _Journal, name: str) -> None:
    """Write `name` into the peer's profile, if it is not there."""
    folder = _folder(journal)
    if folder is not None and read_profile(folder).personality != name:
        update_profile(folder, lambda profile: msgspec.structs.replace(profile, personality=name))


def _rename_launch_files(paths: Paths, old: str, new: str) -> None:
    """Rename `state/lifecycle/<runtime>-<old>.*`; what was renamed before is not found again."""
    for entry in lifecycle_files(paths, old):
        runtime, rest = entry.name.split("-", 1)
        target = entry.with_name(f"{runtime}-{new}{rest.removeprefix(old)}")
        try:
            entry.rename(target)
        except OSError as error:
            raise storage_error(error, entry, f"rename to {target.name}") from error
        fault("rename.one_launch_file")


def _read_journal(paths: Paths) -> _Journal | None:
    """Return the journal; None when another process dealt with it while we waited."""
    try:
        raw = read_json(journal_path(paths))
        return msgspec.convert(raw, _Journal)
    except StorageError as error:
        if error.code == MISSING:
            return None
        raise
    except msgspec.ValidationError as error:
        raise StorageError(
            f"{journal_path(paths)} is no rename journal: {error}",
            hint="look where the peer's folder and profile are, then remove the file",
        ) from error


def _lock(paths: Paths) -> AbstractContextManager[None]:
    ensure_private_dir(paths.state)
    return hold(paths.state / "rename.lock", LOCK_TIMEOUT_S, "renaming")
