"""What iapeer changed outside of its own files for a peer, so that it can be taken back.

One file per peer, `<root>/state/iapeer/changes/<uid>.json`. What the user did himself is not in
it, and stays when the peer is removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from iapeer.core.errors import StorageError
from iapeer.core.profile import RegistryRecord
from iapeer.storage.atomic import ensure_private_dir, remove_file, write_bytes
from iapeer.storage.locks import hold_folder
from iapeer.storage.paths import Paths

_LOCK_TIMEOUT_S = 5.0


class Entry(msgspec.Struct, frozen=True):
    """A table that we put into a configuration file."""

    file: str
    name: str


class Changes(msgspec.Struct, frozen=True):
    """All changes for one peer: trusted folders and hooks (Codex), and files that we made."""

    trusted: tuple[Entry, ...] = ()
    hooks: tuple[Entry, ...] = ()
    made: tuple[str, ...] = ()


def read_changes(paths: Paths, record: RegistryRecord) -> Changes:
    """Return what was changed for a peer; a record that can't be read says nothing."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(_path(paths, record).read_bytes(), type=Changes)
    return Changes()


def update_changes(
    paths: Paths, record: RegistryRecord, edit: Callable[[Changes], Changes]
) -> None:
    """Change what is noted of a peer.

    Raises StorageError, LockBusy.
    """
    ensure_private_dir(paths.changes)
    with hold_folder(paths.changes, _LOCK_TIMEOUT_S, "the record of changes"):
        before = read_changes(paths, record)
        after = edit(before)
        if after == Changes():
            remove_file(_path(paths, record))
        elif after != before:
            write_bytes(_path(paths, record), msgspec.json.encode(after))


def add(entries: tuple[Entry, ...], new: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return the entries with the new ones behind, each once."""
    return tuple(dict.fromkeys((*entries, *new)))


def _path(paths: Paths, record: RegistryRecord) -> Path:
    name = record.uid or record.personality
    if "/" in name or name.startswith("."):
        raise StorageError(f"the uid of {record.personality!r} is no name of a file: {name!r}")
    return paths.changes / f"{name}.json"
