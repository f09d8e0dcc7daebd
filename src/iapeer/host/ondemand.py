"""Starting the daemon when somebody needs it: by the user's unit, else as a process of its own.

Any number of senders may try at once. The daemon that is started takes `start.lock` before it
imports anything heavy; a second one finds it taken, or `daemon.lock`, and ends quietly.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from iapeer.client import hot
from iapeer.core import env
from iapeer.core.errors import DaemonRunning, IapeerError
from iapeer.core.settings import Settings
from iapeer.core.text import one_line
from iapeer.storage.atomic import ensure_private_dir, storage_error
from iapeer.storage.locks import TryLock
from iapeer.storage.paths import Paths

from .common import check_owner

UNIT = "iapeer.service"
"""The systemd user unit, if there is one."""

KEPT = frozenset(
    {
        "PATH",
        env.HOME,
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
        # Keyrings, in which agent programs keep their logins.
        "DBUS_SESSION_BUS_ADDRESS",
        # The way to the network, which an agent program needs as the user's shell does.
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
    }
)
"""What a daemon started on demand inherits of its starter, besides `LC_*` and `IAPEER_*`.

An allow list: whoever sends first may be an agent's session, and its identity, token, API keys and
marks must not become those of every session after it. What a peer needs goes into its launch.env.
"""
_KEPT_PREFIXES = ("LC_", "IAPEER_")

READY_S = 8.0
"""How long a starter looks on; a daemon answers after 0.3 s (measured, warm) to some seconds."""
PROBE_S = 0.3
"""Longer than anybody holds `start.lock` who does not start a daemon."""
HAND_OVER_S = 20.0
"""How long a new daemon waits for one that is going down; its shutdown is bounded by less."""
OUTPUTS_KEPT = 5
_EMPTY_KEPT_S = 3600.0
_UNIT_S = 5.0
_POLL_S = 0.05
_QUOTE_CHARS = 200


class Started(StrEnum):
    """What became of the attempt to start a daemon."""

    STARTED = "started"
    """It answers."""
    STARTING = "starting"
    """It was started, by us or by somebody else, and does not answer yet."""


class _Unit(msgspec.Struct, frozen=True):
    """What systemd says of the unit."""

    state: str
    environment: str


def start_daemon(settings: Settings, environ: Mapping[str, str]) -> Started:
    """Start the daemon of a root and look on for `READY_S` at most.

    Raises IapeerError: another account's root, or it can't be started, with what it said.
    """
    check_owner(settings.root)
    paths = Paths(settings.root)
    for folder in paths.private_dirs():
        ensure_private_dir(folder)
    lock = TryLock(paths.start_lock)
    if not lock.acquire():
        return Started.STARTING
    lock.release()
    kept = daemon_environ(environ)
    if _start_unit(settings, kept):
        return _look_on(settings, None, None)
    output = _open_output(paths)
    try:
        process = _spawn(output, kept)
    finally:
        os.close(output.fd)
    return _look_on(settings, process, output.path)


def daemon_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment a daemon may inherit; see `KEPT`."""
    return {
        name: value
        for name, value in environ.items()
        if (name in KEPT or name.startswith(_KEPT_PREFIXES)) and name != env.FAULT
    }


def serve_on_demand(settings: Settings, ready: Callable[[str], None]) -> int:
    """Be the daemon, unless somebody else is or is about to be; returns the exit status.

    One that is going down is waited for. Raises as `run_daemon`.
    """
    check_owner(settings.root)
    paths = Paths(settings.root)
    ensure_private_dir(paths.state)
    lock = TryLock(paths.start_lock)
    if not lock.acquire(PROBE_S):
        return 0
    # Most who come here only look: they need not import the whole daemon.
    from .run import run_daemon  # noqa: PLC0415

    def answers(line: str) -> None:
        lock.release()
        ready(line)

    deadline = time.monotonic() + HAND_OVER_S
    while True:
        try:
            return run_daemon(settings, ready=answers)
        except DaemonRunning:
            if _answers(settings):
                return 0
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _start_unit(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Let systemd start its unit, if there is one and it serves this root."""
    shown = _systemctl(environ, "show", "--property=LoadState,Environment", UNIT)
    if shown is None:
        return False
    pairs = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    unit = _Unit(pairs.get("LoadState", ""), pairs.get("Environment", ""))
    if unit.state != "loaded" or _root_of(unit, settings) != settings.root.resolve():
        return False
    return _systemctl(environ, "start", "--no-block", UNIT) is not None


def _root_of(unit: _Unit, settings: Settings) -> Path | None:
    """Return the root the unit's daemon would serve; None when that can't be told."""
    try:
        words = shlex.split(unit.environment)
    except ValueError:
        return None
    # systemd quotes a value with blanks, of late as `$'...'`.
    variables = dict(word.lstrip("$").split("=", 1) for word in words if "=" in word)
    root = variables.get(env.ROOT)
    return (Path(root) if root else settings.home / ".iapeer").resolve()


def _systemctl(environ: Mapping[str, str], *words: str) -> str | None:
    """Return what `systemctl --user` printed; None when it can't be used or refused."""
    try:
        done = subprocess.run(
            ["systemctl", "--user", *words],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_UNIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class _Output(msgspec.Struct, frozen=True):
    """The open file a daemon prints to."""

    path: Path
    fd: int


def _open_output(paths: Paths) -> _Output:
    """Make a new file for what the daemon prints; only the newest few are kept."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    path = paths.daemon_output(stamp)
    try:
        _prune(sorted(paths.logs.glob(paths.daemon_output("*").name)))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return _Output(path, os.open(path, flags, 0o600))
    except OSError as error:
        raise storage_error(error, path, "create") from error


def _prune(outputs: Sequence[Path]) -> None:
    """Remove the oldest files. Raises OSError.

    An empty one belongs to a daemon that is just starting, or has found another one and whose
    starter was killed: only its age tells, and it must not push out the file of the other one.
    """
    said = []
    for path in outputs:
        with contextlib.suppress(FileNotFoundError):
            info = path.stat()
            if info.st_size:
                said.append(path)
            elif info.st_mtime < time.time() - _EMPTY_KEPT_S:
                path.unlink()
    for path in said[: max(0, len(said) - OUTPUTS_KEPT + 1)]:
        path.unlink(missing_ok=True)


def _spawn(output: _Output, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "iapeer", "daemon", "--on-demand"],
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output.fd,
            stderr=output.fd,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise IapeerError(f"the daemon can't be started: {error.strerror}") from error


def _look_on(
    settings: Settings, process: subprocess.Popen[bytes] | None, output: Path | None
) -> Started:
    """Wait until it answers, a bounded time. Raises IapeerError when it ended with an error."""
    deadline = time.monotonic() + READY_S
    found = Started.STARTING
    while time.monotonic() < deadline:
        if _answers(settings):
            found = Started.STARTED
            break
        status = process.poll() if process else None
        if status:
            said = _last_line(output)
            raise IapeerError(f"the daemon ended at once: {said or f'exit status {status}'}")
        if status == 0:
            # It found another one that is about to answer, and has said nothing.
            _drop_empty(output)
            return Started.STARTING
        time.sleep(_POLL_S)
    if process is not None:
        # It outlives us on purpose: without this its Popen object complains when it is dropped.
        process.returncode = 0
    return found


def _drop_empty(output: Path | None) -> None:
    with contextlib.suppress(OSError):
        if output is not None and output.stat().st_size == 0:
            output.unlink()


def _answers(settings: Settings) -> bool:
    try:
        hot.request("GET", "/api/v1/ping", socket_path=str(settings.daemon_socket), timeout_s=1.0)
    except (hot.DaemonUnreachable, hot.BadAnswer):
        return False
    return True


def _last_line(output: Path | None) -> str:
    try:
        text = output.read_text("utf-8", "replace") if output else ""
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith("hint: ")]
    return one_line(errors[-1], _QUOTE_CHARS) if errors else ""
