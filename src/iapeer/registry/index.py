"""The host index `peers-profiles.json`: who exists on this host, and its only writer.

Readers get immutable snapshots and are never stopped by one bad record: it is put aside and
reported while the other peers stay reachable. Writers are stopped by it, because a write would
lose what it held; `verify --fix` clears it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from iapeer.core.errors import (
    InvalidInput,
    PeerExists,
    RegistryError,
)
from iapeer.core.identity import default_intelligence
from iapeer.core.names import is_valid_name, is_valid_runtime
from iapeer.core.profile import RegistryRecord
from iapeer.registry.snapshot import (
    FIX_HINT,
    VERSION,
    Problem,
    RegistrySnapshot,
    decode_registry,
)
from iapeer.storage.atomic import ensure_private_dir, replace_unguarded, storage_error, write_bytes
from iapeer.storage.jsonfile import dump_json
from iapeer.storage.locks import hold
from iapeer.storage.paths import Paths
from iapeer.storage.stamped import Stamped

__all__ = [
    "HealReport",
    "PeerUpdate",
    "Problem",
    "Registry",
    "RegistrySnapshot",
    "decode_registry",
    "refuse_taken",
    "same_folder",
]

LOCK_TIMEOUT_S = 10.0
"""Longest wait for another writer; a write takes milliseconds."""

_CWD = re.compile(rb'"cwd"\s*:\s*"([^"\\]+)"')
"""A peer's folder in the text of a file that is no JSON any more (a lost comma, a cut end)."""


class PeerUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer knows of one peer; `""`, `()` and None keep what the index has."""

    personality: str
    runtime: str
    cwd: str
    runtimes: tuple[str, ...] = ()
    description: str = ""
    intelligence: str = ""
    interfaces: dict[str, object] | None = None
    uid: str = ""


class HealReport(msgspec.Struct, frozen=True):
    """What `Registry.heal` did: the file with what was put aside, and the peers it rebuilt."""

    quarantine: Path | None = None
    rebuilt: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


_T = TypeVar("_T")


class Registry:
    """The index file of one root. Safe to share between threads; every write takes the lock."""

    def __init__(self, paths: Paths, *, sandbox: bool) -> None:
        """`sandbox` is IAPEER_TEST_SANDBOX=1: a write to the real root is then refused."""
        self.paths = paths
        self._sandbox = sandbox
        self._file = Stamped(lambda data, _path: decode_registry(data))
        self._last: RegistrySnapshot | None = None

    def snapshot(self, *, allow_stale: bool = False) -> RegistrySnapshot:
        """Return the index as it is on disk; an absent file is an empty index.

        With `allow_stale` a file that can't be read at all gives the last good snapshot with a
        problem added, if there was one.

        Raises RegistryError.
        """
        try:
            snapshot = self._load()
        except RegistryError as error:
            if allow_stale and self._last is not None:
                problems = (*self._last.problems, Problem("", error.message))
                return replace(self._last, problems=problems)
            raise
        self._last = snapshot
        return snapshot

    def upsert(self, update: PeerUpdate) -> RegistryRecord:
        """Merge `update` into the index and return the record.

        Its runtime and cwd win, runtimes are united, the rest is kept where the update is silent;
        defaults are for a new record only.

        Raises InvalidInput, RegistryError, LockBusy, StorageError; nothing is written then.
        """
        _check_update(update)

        def change(records: dict[str, RegistryRecord]) -> RegistryRecord:
            record = _merged(records.get(update.personality), update)
            records[update.personality] = record
            return record

        return self.change(change)

    def register(self, record: RegistryRecord) -> RegistryRecord:
        """Put a peer's projection in, unless its name belongs to another folder.

        Raises PeerExists, RegistryError, LockBusy, StorageError.
        """

        def change(records: dict[str, RegistryRecord]) -> RegistryRecord:
            refuse_taken(records.get(record.personality), record.cwd)
            records[record.personality] = record
            return record

        return self.change(change)

    def replace(self, projections: Iterable[RegistryRecord]) -> None:
        """Put projections in place of the records of the same names, in one write.

        Raises RegistryError, LockBusy, StorageError.
        """
        wanted = {record.personality: record for record in projections}

        def change(records: dict[str, RegistryRecord]) -> None:
            records.update(wanted)

        self.change(change)

    def remove(self, personality: str) -> RegistryRecord | None:
        """Take a peer out; return its record, None when it was not there.

        Raises RegistryError, LockBusy, StorageError.
        """
        return self.change(lambda records: records.pop(personality, None))

    def change(self, change: Callable[[dict[str, RegistryRecord]], _T]) -> _T:
        """Call `change` with the records read under the lock, write what it leaves.

        Returns what `change` returns. It may do what must happen with the write (a profile, a
        journal): an error of its own leaves the file as it was.

        Raises RegistryError when the file can't be written without loss, LockBusy, StorageError.
        """
        with self._writing():
            before = self._load()
            _refuse_lossy(before)
            records = dict(before.by_name)
            result = change(records)
            self._write(records, before.extra)
        return result

    def heal(self, rebuild: Callable[[str], RegistryRecord | None], stamp: str) -> HealReport:
        """Put what is corrupt aside, into a 0600 file named after `stamp`, and make a clean index.

        `rebuild` is given a folder that a corrupt record names and returns the projection of the
        profile there, None without one. A file that is no registry at all is put aside whole and
        the index made anew from the folders that its text names and those below `peers/`.

        Raises RegistryError for a file of a newer version, LockBusy, StorageError.
        """
        with self._writing():
            data = self._read() or b""
            try:
                before = self._load()
            except RegistryError:
                return self._heal_file(data, rebuild, stamp)
            if not before.problems:
                return HealReport()
            _refuse_newer(before)
            raw = [problem.raw for problem in before.problems]
            aside = self._put_aside(f"{stamp}-records.json", dump_json(raw))
            records = dict(before.by_name)
            rebuilt = _rebuild(records, (_folder_of(item) for item in raw), rebuild)
            names = {problem.personality for problem in before.problems}
            self._write(records, before.extra)
            return HealReport(aside, rebuilt, tuple(sorted(names - records.keys())))

    def _heal_file(
        self, data: bytes, rebuild: Callable[[str], RegistryRecord | None], stamp: str
    ) -> HealReport:
        aside = self._put_aside(f"{stamp}-peers-profiles.json", data)
        named = [match[1].decode("utf-8", "replace") for match in _CWD.finditer(data)]
        homes = sorted(self.paths.peers.iterdir()) if self.paths.peers.is_dir() else []
        records: dict[str, RegistryRecord] = {}
        rebuilt = _rebuild(records, (*named, *map(str, homes)), rebuild)
        self._write(records, {})
        return HealReport(aside, rebuilt)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._refuse_real_root()
        ensure_private_dir(self.paths.root)
        with hold(self.paths.registry_lock, LOCK_TIMEOUT_S, "the registry"):
            yield

    def _write(self, records: Mapping[str, RegistryRecord], extra: Mapping[str, object]) -> None:
        """Replace the file; the only call that does, and only under the lock."""
        peers = [records[name].to_json() for name in sorted(records)]
        data = dump_json({"version": VERSION, "peers": peers, **extra})
        if data != self._read():
            replace_unguarded(self.paths.registry, data, 0o600)

    def _put_aside(self, name: str, data: bytes) -> Path:
        ensure_private_dir(self.paths.quarantine)
        aside = self.paths.quarantine / name
        number = 1
        while aside.exists():
            number += 1
            aside = self.paths.quarantine / f"{number}-{name}"
        write_bytes(aside, data)
        return aside

    def _refuse_real_root(self) -> None:
        real = Path.home() / ".iapeer"
        if self._sandbox and os.path.realpath(self.paths.root) == os.path.realpath(real):
            raise RegistryError(
                f"refused to write the real registry {self.paths.registry} from a test",
                hint="set IAPEER_ROOT to a folder of the test",
            )

    def _load(self) -> RegistrySnapshot:
        try:
            return self._file.of(self.paths.registry)
        except FileNotFoundError:
            return RegistrySnapshot()
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self) -> bytes | None:
        """Return the content of the file, None when it is absent."""
        try:
            return self.paths.registry.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> RegistryError:
        cause = storage_error(error, self.paths.registry, "read")
        return RegistryError(cause.message, hint=cause.hint)


def _rebuild(
    records: dict[str, RegistryRecord],
    folders: Iterable[str],
    rebuild: Callable[[str], RegistryRecord | None],
) -> tuple[str, ...]:
    """Add the projections that `rebuild` finds in `folders`, never over a present record."""
    added = []
    for folder in folders:
        record = rebuild(folder) if folder else None
        if record is not None and record.personality not in records:
            records[record.personality] = record
            added.append(record.personality)
    return tuple(added)


def _folder_of(item: object) -> str:
    folder = item.get("cwd") if isinstance(item, dict) else None
    return folder if isinstance(folder, str) else ""


def refuse_taken(record: RegistryRecord | None, cwd: str) -> None:
    """Refuse a name whose record is there and names another folder.

    Raises PeerExists.
    """
    if record is not None and not same_folder(record.cwd, cwd):
        raise PeerExists(
            f"peer {record.personality!r} already exists in {record.cwd}",
            hint="rename this folder: a peer is named after its folder",
        )


def same_folder(left: str, right: str) -> bool:
    """Tell whether two paths are one folder: real paths, on macOS without regard to case."""
    one, other = os.path.realpath(left), os.path.realpath(right)
    return one == other or (sys.platform == "darwin" and one.casefold() == other.casefold())


def _merged(existing: RegistryRecord | None, update: PeerUpdate) -> RegistryRecord:
    if existing is None:
        known: tuple[str, ...] = ()
        base = RegistryRecord(
            personality=update.personality,
            default_runtime=update.runtime,
            runtimes=(update.runtime,),
            intelligence=default_intelligence(update.runtime),
            cwd=update.cwd,
        )
    else:
        known = existing.runtimes
        base = existing
    merged = msgspec.structs.replace(
        base,
        default_runtime=update.runtime,
        runtimes=tuple(dict.fromkeys((update.runtime, *known, *update.runtimes))),
        description=update.description.strip() or base.description,
        cwd=update.cwd,
        interfaces=base.interfaces if update.interfaces is None else update.interfaces,
        uid=update.uid or base.uid,
    )
    return merged.with_intelligence(update.intelligence) if update.intelligence else merged


def _check_update(update: PeerUpdate) -> None:
    if not is_valid_name(update.personality):
        raise InvalidInput(f"invalid personality {update.personality!r}")
    for runtime in (update.runtime, *update.runtimes):
        if not is_valid_runtime(runtime):
            raise InvalidInput(f"invalid runtime {runtime!r}")
    if not Path(update.cwd).is_absolute():
        raise InvalidInput(f"the folder of a peer must be a full path, not {update.cwd!r}")


def _refuse_lossy(snapshot: RegistrySnapshot) -> None:
    _refuse_newer(snapshot)
    if snapshot.problems:
        count = len(snapshot.problems)
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise RegistryError(f"{snapshot.problems[0].message}{more}; nothing written", hint=FIX_HINT)


def _refuse_newer(snapshot: RegistrySnapshot) -> None:
    if snapshot.version > VERSION:
        raise RegistryError(
            f"peers-profiles.json has version {snapshot.version}; writing it as {VERSION} "
            "would lose what the newer one knows",
            hint="update iapeer",
        )
