"""Writes that are there completely or not at all, also after a power cut, and private folders."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import uuid
from pathlib import Path

from iapeer.core.errors import StorageError
from iapeer.storage.paths import REGISTRY_NAME

_HINTS = {
    errno.ENOSPC: "free space on that disk, then try again",
    errno.EDQUOT: "the disk quota is used up: free space, then try again",
    errno.EFBIG: "the file size limit of this process is too small (ulimit -f)",
    errno.EACCES: "check owner and mode of the folder; it must belong to this user",
    errno.EPERM: "check owner and mode of the folder; it must belong to this user",
    errno.EROFS: "the file system is mounted read-only",
    errno.ELOOP: "a symbolic link points at itself; remove it",
    errno.ENOENT: "a folder above it is missing",
}


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """Return the error to raise for `error`, met while `doing` (a verb: "write") `path`."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = _HINTS.get(error.errno or 0, "")
    return StorageError(f"could not {doing} {path}: {reason}", hint=hint)


def write_text(path: Path, text: str, mode: int | None = 0o600) -> None:
    """Write `text` as UTF-8; the promises and errors are those of `write_bytes`."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: Path, data: bytes, mode: int | None = 0o600) -> None:
    """Replace `path` by `data` atomically and durably.

    A reader sees the old or the new content, never a part. When this returns, file and name are
    on the disk. The mode is set before the name appears; `mode=None` keeps mode and owner of the
    file that is there (0600 for a new one). A symbolic link is kept and its target replaced.
    The registry's file name is refused: it has one writer, under its lock.

    Raises StorageError; the old content is then untouched and the temporary file gone.
    """
    target = _target(path)
    if REGISTRY_NAME in (path.name, target.name):
        raise StorageError(
            f"refused to write {path}: the registry is written by its own writer only",
            hint="use iapeer.registry.index.Registry",
        )
    replace_unguarded(target, data, mode)


def replace_unguarded(path: Path, data: bytes, mode: int | None) -> None:
    """Do the work of `write_bytes` without its guard and without following a link.

    Called by `write_bytes` and by the registry's private writer; a test keeps it so.

    Raises StorageError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, data)
            _set_mode(fd, path, mode)
            sync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        sync_dir(path.parent)
    except OSError as error:
        raise storage_error(error, path, "write") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def remove_file(path: Path) -> bool:
    """Remove a file durably; tell whether it was there.

    Raises StorageError.
    """
    try:
        os.unlink(path)
        sync_dir(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path, "remove") from error
    return True


def sync(fd: int) -> None:
    """Force a file to the platter: `fsync`, on macOS F_FULLFSYNC (its fsync stops at the drive).

    See fsync(2) of macOS: "the drive itself may not physically write the data".
    """
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - needed on this platform only

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_dir(path: Path) -> None:
    """Force a folder's names to the disk, so that a rename in it survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def ensure_private_dir(path: Path) -> None:
    """Make `path` a folder that only this user can enter: missing parents too, all 0700.

    A folder that others may only read is closed (chmod 0700); one that belongs to somebody else,
    or that group or world may write, is refused: what is in there could be anybody's.

    Raises StorageError.
    """
    try:
        _make_missing(path)
        info = os.stat(path)
        if not stat.S_ISDIR(info.st_mode):
            raise StorageError(f"{path} is not a folder", hint="move the file away")
        if info.st_uid != os.geteuid():
            raise StorageError(
                f"{path} belongs to uid {info.st_uid}, not to uid {os.geteuid()}",
                hint="use a folder of your own (IAPEER_ROOT)",
            )
        if info.st_mode & 0o022:
            raise StorageError(
                f"{path} may be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
                hint=f"look through it, then: chmod 700 {path}",
            )
        if info.st_mode & 0o077:
            os.chmod(path, 0o700)
    except OSError as error:
        raise storage_error(error, path, "make private") from error


def _make_missing(path: Path) -> None:
    """Create `path` and its missing parents, each 0700 and durable."""
    missing = []
    current = path
    while not current.exists():
        missing.append(current)
        current = current.parent
    for folder in reversed(missing):
        # Another process may be making the same tree.
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_dir(folder.parent)


def _target(path: Path) -> Path:
    """Return what a link stands for, also when that does not exist yet; else `path`."""
    if not path.is_symlink():
        return path
    try:
        return Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise storage_error(error, path, "follow") from error


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _set_mode(fd: int, path: Path, mode: int | None) -> None:
    """Give the temporary file its final mode, or mode and owner of the file it replaces."""
    if mode is not None:
        os.fchmod(fd, mode)
        return
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
