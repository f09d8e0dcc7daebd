"""Changes to configuration files of the user: only the keys meant, everything else as it was.

Such a file has other writers: the user, the agent program, a memory provider. Ours take turns by
a lock on its folder, and look before they replace it whether somebody else has changed it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from iapeer.core.errors import LockBusy, StorageError
from iapeer.storage.atomic import ensure_private_dir, remove_file, storage_error, write_bytes
from iapeer.storage.jsonfile import INVALID, parse_json
from iapeer.storage.locks import hold_folder

from .tomltext import cut_tables

Keys = tuple[str, ...]
"""The way to a value: the name of each table, then the key."""
_Document = MutableMapping[str, Any]
_NewTable = Callable[[_Document, bool], _Document]

LOCK_TIMEOUT_S = 5.0
"""Longest wait for another writer of ours; a change takes milliseconds."""
_TRIES = 3
"""How often a change is begun anew because another program changed the file meanwhile."""
_INDENT = re.compile(rb'\{\r?\n([ \t]+)"')
_BACKUP = ".iapeer-backup"
_MARK = b"# Made by iapeer, and removed by it when nothing else is in here.\n"


class Put(msgspec.Struct, frozen=True):
    """A value and the way to it."""

    keys: Keys
    value: bool | str


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """A change to one file, JSON or TOML by its suffix.

    Missing tables on the way to a `put` key are made; a table that a `drop` leaves empty goes as
    well. With `is_ours` the file goes when nothing is left in it, no comment either. `is_shared`
    is for a TOML file of the whole account: the first change to one that we did not make is
    preceded by a copy beside it, mode 0600, and one that we make says so and goes like one of ours.
    """

    path: Path
    put: tuple[Put, ...] = ()
    drop: tuple[Keys, ...] = ()
    is_ours: bool = False
    is_shared: bool = False


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What `merge` did; `made` are the file and folders that were not there before."""

    changed: bool = False
    made: tuple[Path, ...] = ()
    backup: Path | None = None


def merge(change: Merge) -> Merged:
    """Make a change to a file, atomically; mode and owner stay, a new file is 0600.

    Raises StorageError when the file is not what its suffix says, or holds something else where
    a table is needed, or can't be written, LockBusy; the file is untouched then.
    """
    target = Path(os.path.realpath(change.path))
    made = _make_folder(target.parent) if change.put else ()
    if not target.parent.is_dir():
        return Merged()
    with hold_folder(target.parent, LOCK_TIMEOUT_S, str(change.path)):
        for _ in range(_TRIES):
            before = read_bytes(target)
            after = _changed(change, before)
            if after is None:
                return Merged()
            if read_bytes(target) == before:
                return _store(change, before, after, made)
    raise LockBusy(f"another program keeps changing {change.path}", retry_after_s=1.0)


def backup_path(path: Path) -> Path:
    """Return where the copy is that `merge` makes before its first change to `path`."""
    return path.with_name(path.name + _BACKUP)


def read_bytes(path: Path) -> bytes | None:
    """Return the content of a file, None when there is none.

    Raises StorageError.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "read") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file says, nothing when there is none.

    Raises StorageError naming the file.
    """
    return _parse_toml(read_bytes(path) or b"", path)


def _store(change: Merge, before: bytes | None, after: bytes, made: tuple[Path, ...]) -> Merged:
    backup = None
    is_made = before is None or before.startswith(_MARK)
    if change.is_shared and not is_made and not backup_path(change.path).exists():
        backup = backup_path(change.path)
        write_bytes(backup, before or b"")
    is_ours = change.is_ours or (change.is_shared and is_made)
    if is_ours and not after.removeprefix(_MARK).strip():
        remove_file(change.path)
        return Merged(changed=True, backup=backup)
    write_bytes(change.path, after, mode=None)
    new = () if before is not None else (change.path,)
    return Merged(changed=True, made=(*made, *new), backup=backup)


def _make_folder(folder: Path) -> tuple[Path, ...]:
    """Make a folder that is missing, 0700; return those that were made."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    if missing:
        ensure_private_dir(folder)
    return tuple(reversed(missing))


def _changed(change: Merge, before: bytes | None) -> bytes | None:
    """Return the new content, None when there is nothing to change."""
    if before is None and not change.put:
        return None
    edit = _edit_json if change.path.suffix == ".json" else _edit_toml
    try:
        return edit(change, before)
    except (ValueError, RecursionError) as error:
        # A number JSON can't hold, a path that is no Unicode: nothing we may lose or guess.
        raise StorageError(f"{change.path} can't be changed safely: {error}") from None


def _edit_json(change: Merge, before: bytes | None) -> bytes | None:
    document = {} if before is None else parse_json(before, change.path)
    if not isinstance(document, dict):
        raise StorageError(
            f"{change.path} is not a JSON object", hint="repair the file or restore it"
        )
    if not _apply(change, document, lambda _parent, _outer: {}):
        return None
    if not document and change.is_ours:
        return b""
    found = _INDENT.match(before or b"")
    indent = found[1].decode() if found else "  "
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    ends = before is None or before.endswith(b"\n")
    return text.encode() + (b"\n" if ends else b"")


def _edit_toml(change: Merge, before: bytes | None) -> bytes | None:
    """Edit twice, the text and what it means: they must agree, or nothing is written."""
    text = (_MARK if change.is_shared else b"") if before is None else before
    wanted, allowed = _parse_toml(text, change.path), _parse_toml(text, change.path)
    if not _apply(change, wanted, lambda _parent, _outer: {}):
        return None
    _apply(change, allowed, lambda _parent, _outer: {}, keeps=lambda _table: True)
    import tomlkit  # noqa: PLC0415 - 60 ms, and most changes have nothing to do
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - as above
    from tomlkit.items import InlineTable  # noqa: PLC0415 - as above

    def table(parent: _Document, is_outer: bool) -> _Document:  # noqa: FBT001 - a callback
        if isinstance(parent, InlineTable):
            return tomlkit.inline_table()
        return tomlkit.table(is_super_table=is_outer)

    def has_comment(table: _Document) -> bool:
        trivia = getattr(table, "trivia", None)
        return bool(trivia and trivia.comment) or "#" in tomlkit.dumps(table)

    try:
        document = tomlkit.parse(cut_tables(text.decode(), change.drop))
        _apply(change, document, table, keeps=has_comment)
        after = _ended_like(text, tomlkit.dumps(document).encode())
    except TOMLKitError as error:
        raise StorageError(f"{change.path} can't be changed safely: {error}") from None
    if _parse_toml(after, change.path) not in (wanted, allowed):
        raise StorageError(
            f"{change.path} can't be changed without touching other keys", hint="change it by hand"
        )
    return after


def _ended_like(before: bytes, after: bytes) -> bytes:
    """Return `after` without blank lines at its end that `before` did not have."""
    ends = len(before) - len(before.rstrip(b"\n"))
    more = len(after) - len(after.rstrip(b"\n")) - max(1, ends)
    return after[:-more] if more > 0 else after


def _parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most verbs read none

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} is not valid TOML: {error}", hint="repair the file or restore it", code=INVALID
        ) from None


def _apply(
    change: Merge,
    document: _Document,
    table: _NewTable,
    keeps: Callable[[_Document], bool] = lambda _table: False,
) -> bool:
    """Change a document; tell whether that changed anything.

    `keeps` says that a table stays though nothing is left in it (a comment of the user may be).
    """
    done = [_put(document, put, table, change.path) for put in change.put]
    done += [_drop(document, keys, keeps) for keys in change.drop]
    return any(done)


def _put(document: _Document, put: Put, table: _NewTable, path: Path) -> bool:
    node, keys, value = document, put.keys, put.value
    for depth, key in enumerate(keys[:-1]):
        if key not in node:
            node[key] = table(node, depth < len(keys) - 2)
        if not isinstance(node[key], MutableMapping):
            raise StorageError(f"{path}: {'.'.join(keys[: depth + 1])} is not a table")
        node = node[key]
    if keys[-1] in node and node[keys[-1]] == value and type(value) is type(node[keys[-1]]):
        return False
    node[keys[-1]] = value
    return True


def _drop(document: _Document, keys: Keys, keeps: Callable[[_Document], bool]) -> bool:
    node, above = document, list[tuple[_Document, str]]()
    for key in keys[:-1]:
        inner = node.get(key)
        if not isinstance(inner, MutableMapping):
            return False
        above.append((node, key))
        node = inner
    if keys[-1] not in node:
        return False
    del node[keys[-1]]
    for parent, key in reversed(above):
        if parent[key] or keeps(parent[key]):
            break
        del parent[key]
    return True
