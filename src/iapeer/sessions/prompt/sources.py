"""Where the layers come from: files below the root and in the peer's folder, and the host.

A file that is not there, or goes while it is read, is absent. One that is there and can't be
used (unreadable, no regular file, too large) is absent too, and `tell` hears why.
"""

from __future__ import annotations

import os
import platform
import pwd
import shlex
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from iapeer.registry.admin import DOCTRINE_NAME
from iapeer.storage.atomic import storage_error
from iapeer.storage.paths import peer_dir

FILE_MAX_BYTES = 1024 * 1024
"""A larger file is left out: 1 MiB is about 260,000 tokens, more than most models can read."""
TOTAL_MAX_BYTES = 4 * FILE_MAX_BYTES
"""Bytes of all layer files together; what would exceed it is left out."""
NAMES_MAX = 500
"""Files of one folder that are looked at, in order of their names."""
FRAGMENTS = "fragments"

_SUFFIX = ".md"
_UNKNOWN = "unknown"
_OS_RELEASE = Path("/etc/os-release")

Tell = Callable[[str], None]
"""Is given one sentence for the operator: what was left out of a prompt, and why."""


class HostFacts(msgspec.Struct, frozen=True):
    """What an agent is told of its host; each is `unknown` where it can't be found out."""

    platform: str
    os_version: str
    user: str
    hostname: str


class LayerFile(msgspec.Struct, frozen=True):
    """One file of a layer; `text` is its content with invalid UTF-8 as U+FFFD."""

    path: Path
    text: str


def host_facts(environ: Mapping[str, str]) -> HostFacts:
    """Return the facts of this host and user; nothing is run for it."""
    return HostFacts(
        platform=sys.platform,
        os_version=_os_version(),
        user=environ.get("USER") or _account(),
        hostname=socket.gethostname().partition(".")[0] or _UNKNOWN,
    )


def os_release_version(path: Path) -> str:
    """Return VERSION_ID of an os-release file, `unknown` without one (rolling distributions)."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _UNKNOWN
    for line in text.splitlines():
        key, _, value = line.strip().partition("=")
        if key == "VERSION_ID":
            # The values are shell words (os-release(5)); a broken one tells nothing.
            with suppress(ValueError):
                return "".join(shlex.split(value)) or _UNKNOWN
    return _UNKNOWN


def has_doctrine(cwd: Path, tell: Tell) -> bool:
    """Return whether the peer of `cwd` has a doctrine, be it empty: only then is a prompt made."""
    path = peer_dir(cwd) / DOCTRINE_NAME
    try:
        return path.exists()
    except OSError as error:
        tell(storage_error(error, path, "look for").message)
        return False


class LayerFiles:
    """The layer files of one peer, each pair host-wide first; read once, within bounds."""

    def __init__(self, root: Path, cwd: Path, tell: Tell) -> None:
        own = peer_dir(cwd)
        # The peer of the home folder has the root as its own: its files are not told twice.
        same = os.path.realpath(root) == os.path.realpath(own)
        self._folders = (root,) if same else (root, own)
        self._tell = tell
        self._left = TOTAL_MAX_BYTES

    def doctrine(self) -> Iterator[LayerFile]:
        """Yield `IAPEER.md` of the host, then of the peer."""
        for folder in self._folders:
            yield from self._read(folder / DOCTRINE_NAME)

    def domains(self) -> Iterator[LayerFile]:
        """Yield the other `*.md` files of both folders by name; folders are not entered."""
        yield from self._union(self._folders, excluded=DOCTRINE_NAME.casefold())

    def fragments(self) -> Iterator[LayerFile]:
        """Yield the `*.md` files of both `fragments` folders by name."""
        yield from self._union(tuple(folder / FRAGMENTS for folder in self._folders))

    def _union(self, folders: tuple[Path, ...], excluded: str = "") -> Iterator[LayerFile]:
        listed = [(folder, self._names(folder, excluded)) for folder in folders]
        for name in sorted({name for _, names in listed for name in names}):
            for folder, names in listed:
                if name in names:
                    yield from self._read(folder / name)

    def _names(self, folder: Path, excluded: str) -> frozenset[str]:
        """Return the names of a folder's `.md` entries, whatever they are."""
        try:
            entries = [entry.name for entry in folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            self._tell(storage_error(error, folder, "read").message)
            return frozenset()
        names = sorted(
            name
            for name in entries
            if name.lower().endswith(_SUFFIX) and name.casefold() != excluded
        )
        if len(names) > NAMES_MAX:
            self._tell(f"{folder} has {len(names)} files, the first {NAMES_MAX} are used")
        return frozenset(names[:NAMES_MAX])

    def _read(self, path: Path) -> Iterator[LayerFile]:
        try:
            data = _read_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._tell(storage_error(error, path, "read").message)
            return
        if data is None:
            if not path.is_dir():
                self._tell(f"{path} is left out: it is no regular file")
        elif len(data) > FILE_MAX_BYTES:
            self._tell(f"{path} is left out: it has more than {FILE_MAX_BYTES} bytes")
        elif len(data) > self._left:
            self._tell(f"{path} is left out: the prompt would exceed {TOTAL_MAX_BYTES} bytes")
        else:
            self._left -= len(data)
            yield LayerFile(path, data.decode("utf-8", "replace"))


def _read_regular(path: Path) -> bytes | None:
    """Return at most FILE_MAX_BYTES + 1 bytes of a regular file, None for anything else."""
    # A FIFO or a terminal must not block the start of a session.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(FILE_MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _os_version() -> str:
    if sys.platform == "darwin":
        return platform.mac_ver()[0] or _UNKNOWN
    return os_release_version(_OS_RELEASE)


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return _UNKNOWN
