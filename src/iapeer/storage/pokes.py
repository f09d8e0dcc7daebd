"""Pokes: how a process that wrote to the ledger by itself wakes the daemon at once.

A poke carries nothing. The daemon watches the folder and then asks the ledger whether another
process has committed; one that is missed is made good by its next audit.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from iapeer.core.errors import StorageError
from iapeer.storage.atomic import ensure_private_dir

_NAME = "ledger"


def poke(folder: Path) -> None:
    """Touch the poke file, after the commit it tells of; never fails.

    One byte is written over the old one: a change of time alone is no event of a folder's watch,
    and the file does not grow.
    """
    # The message is safe already and the audit finds it: no reason to tell its sender of a fault.
    with contextlib.suppress(OSError, StorageError):
        ensure_private_dir(folder)
        fd = os.open(folder / _NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, b".", 0)
        finally:
            os.close(fd)
