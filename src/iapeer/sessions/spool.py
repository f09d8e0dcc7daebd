"""Short-lived 0600 files that carry what must not be on a command line."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path

from iapeer.core.errors import StorageError
from iapeer.storage.atomic import ensure_private_dir

PASTE_STEM = ".paste"
"""How the files that message bodies go through begin."""


def write_private(directory: Path, stem: str, data: bytes) -> Path:
    """Write `data` to a new 0600 file with an unguessable name in `directory`; return its path.

    The folder is made private first. Not durable: the reader is waiting for it.

    Raises:
        StorageError: it can't be written; nothing is left behind.
    """
    ensure_private_dir(directory)
    path = directory / f"{stem}-{secrets.token_hex(8)}"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
        except OSError:
            remove(path)
            raise
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror}") from error
    return path


def remove(path: Path) -> None:
    """Unlink `path`; one that is not there is fine."""
    path.unlink(missing_ok=True)


def sweep(directory: Path, stem: str, older_than_s: float = 60.0) -> int:
    """Unlink what a killed process left behind; return how many files went.

    Only regular files whose name begins with `stem-` and that are older than `older_than_s`
    (wall time) go: a younger one may still be waited for.
    """
    if not directory.is_dir():
        return 0
    count = 0
    for path in directory.glob(f"{stem}-*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_mtime <= time.time() - older_than_s:
                path.unlink()
                count += 1
    return count
