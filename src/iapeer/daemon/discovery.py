"""`router.json`: where the daemon of a root listens, for clients that were told nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from iapeer.storage.atomic import ensure_private_dir, remove_file, write_text


class Discovery(msgspec.Struct, frozen=True):
    """The file's content: path of the unix socket, URL of the MCP endpoint; null when absent."""

    sock: str | None
    tcp: str | None


def read(path: Path) -> Discovery | None:
    """Return what the file says, None when there is none or it can't be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Discovery)
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, found: Discovery) -> None:
    """Write the file atomically, 0600, in a 0700 folder.

    Raises StorageError.
    """
    ensure_private_dir(path.parent)
    write_text(path, msgspec.json.encode(found).decode() + "\n")


def remove(path: Path, ours: Discovery) -> bool:
    """Remove the file if it still says what we wrote; tell whether it was removed.

    Raises StorageError.
    """
    return read(path) == ours and remove_file(path)
