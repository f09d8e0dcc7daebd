"""Files that others write and we keep in bounds: by size of each, and of their folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_BLOCK = 1 << 20


def cut(path: Path, longest: int, kept: int) -> bool:
    """Shorten a file over `longest` bytes to its last `kept` ones; tell whether that was done.

    The file itself stays: a process that appends to it goes on in the same file. What it writes in
    the moment of the cut may be lost. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= longest:
            return False
        read, written = size - kept, 0
        while True:
            file.seek(read)
            block = file.read(_BLOCK)
            if not block:
                break
            read += len(block)
            file.seek(written)
            file.write(block)
            written += len(block)
        file.truncate(written)
        return True
    return False


def prune(folder: Path, pattern: str, budget: int, most: int) -> int:
    """Remove the oldest files of a folder until it holds at most `budget` bytes and `most` files.

    The newest one stays whatever its size. Returns how many went. Raises OSError.
    """
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            info = path.lstat()
            found.append((info.st_mtime_ns, info.st_size, path))
    found.sort(reverse=True)
    total = gone = 0
    for position, (_, size, path) in enumerate(found):
        total += size
        if position and (total > budget or position >= most):
            path.unlink(missing_ok=True)
            gone += 1
    return gone
