"""The two listening sockets: bound so that nobody else's is ever taken or removed."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path

from iapeer.core.errors import ConfigError, DaemonRunning, PortBusy, StorageError
from iapeer.daemon.auth import PeerCred
from iapeer.storage.atomic import ensure_private_dir, storage_error

LOOPBACK = "127.0.0.1"
BACKLOG = 128
_PATH_MAX = 107 if sys.platform != "darwin" else 103
"""Bytes of a unix socket's path (unix(7): sun_path less the final NUL)."""
_PROBE_S = 1.0
_UMASK = 0o177
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
"""macOS <sys/un.h>; the socket module has no names for them."""


def bind_tcp(port: int) -> socket.socket:
    """Listen on the loopback address only; port 0 takes any free one.

    Raises PortBusy naming the holder where this account may see it, ConfigError.
    """
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted; without it every answer
    # of two writes waits 40 ms for a delayed ACK (measured: 54 ms an MCP call against 1.6).
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port in TIME_WAIT is free; one somebody listens on still refuses.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(
                f"port {port} is taken by {_holder(port)}",
                hint="choose another one: iapeer daemon --port N, or IAPEER_PORT",
            ) from None
        raise ConfigError(f"can't listen on {LOOPBACK}:{port}: {error.strerror}") from None
    return sock


class UnixListener:
    """A bound unix socket and the inode it made, so that only our own file is ever unlinked."""

    def __init__(self, path: Path) -> None:
        """Listen at `path`: folder 0700, socket 0600 from its first moment.

        Raises DaemonRunning when somebody answers there, ConfigError, StorageError.
        """
        self.path = path
        if len(os.fsencode(path)) > _PATH_MAX:
            raise ConfigError(
                f"the socket path {path} is longer than {_PATH_MAX} bytes",
                hint="set a shorter one: IAPEER_DAEMON_SOCKET",
            )
        ensure_private_dir(path.parent)
        _clear_stale(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind_private(self.sock, path)
            self._inode = _inode(path)
            self.sock.listen(BACKLOG)
            self.sock.setblocking(False)
        except OSError as error:
            self.sock.close()
            raise StorageError(f"can't listen at {path}: {error.strerror}") from None

    def unlink(self) -> None:
        """Remove the socket's file if it is still ours.

        Raises StorageError.
        """
        try:
            if _inode(self.path) == self._inode:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self.path, "remove") from error


def peer_of(sock: socket.socket) -> PeerCred | None:
    """Return the process that connected to a unix socket, None when the kernel can't say."""
    try:
        if sys.platform == "darwin":
            cred = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
            uid, gid = struct.unpack_from("=4xI4xI", cred)
            (pid,) = struct.unpack("=i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
        else:
            size = struct.calcsize("3i")
            cred = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid, uid, gid = struct.unpack("3i", cred)
    except OSError:
        return None
    return PeerCred(pid, uid, gid)


def _bind_private(sock: socket.socket, path: Path) -> None:
    """Bind with a umask: between bind and a chmod the file would have the process's own mode."""
    before = os.umask(_UMASK)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _clear_stale(path: Path) -> None:
    """Remove a socket nobody serves; a file that is no socket stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{path} is in the way: it is no socket",
            hint="move the file, or set IAPEER_DAEMON_SOCKET",
        )
    if _answers(path):
        raise DaemonRunning(
            f"another daemon answers at {path}",
            hint="stop it first, or use another IAPEER_ROOT",
        )
    with suppress(FileNotFoundError):
        path.unlink()


def _answers(path: Path) -> bool:
    """Tell whether somebody listens there; a full backlog counts as somebody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


def _holder(port: int) -> str:
    """Name the process that listens on a port: pid and program where this account may look."""
    import psutil  # noqa: PLC0415 - 6 ms, and a port is seldom taken

    with suppress(psutil.Error, OSError):
        for found in psutil.net_connections(kind="tcp"):
            listens = found.status == psutil.CONN_LISTEN and found.pid
            if listens and getattr(found.laddr, "port", None) == port:
                return f"pid {found.pid} ({psutil.Process(found.pid).name()})"
    return "a process this account can't see"
