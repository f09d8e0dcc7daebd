"""The error tree: what happened (`message`), what to do (`hint`), and a stable `code`.

Subclasses say what a caller can do about it; exit status and HTTP status are tables at the
edges, not here. Messages keep the contract's keywords, because other programs match on them.
"""

from __future__ import annotations


class IapeerError(Exception):
    """Base of all errors this package raises on purpose.

    `code` is stable and machine readable, `message` is one sentence that names the thing,
    `hint` (may be empty) says what to do next, `retry_after_s` is set when waiting can help.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(IapeerError):
    """The caller's own words are wrong; the same call will fail again."""

    code = "invalid_input"


class UsageError(InvalidInput):
    """A command line that can't be understood; exit status 2."""

    code = "usage"


class ConfigError(IapeerError):
    """A file or environment variable the operator owns holds a bad value."""

    code = "config"


class EnvelopeError(InvalidInput):
    """Text that is no envelope; `data` is what was read, cut to 200 characters."""

    code = "envelope"

    def __init__(self, message: str, data: str = "") -> None:
        super().__init__(message)
        self.data = data[:200]


class PeerNotFound(IapeerError):
    """No such peer in the index."""

    code = "unknown_peer"


class PeerExists(IapeerError):
    """The name or the folder belongs to another peer."""

    code = "peer_exists"


class ProfileError(IapeerError):
    """A local profile that can't be read or is not one."""

    code = "profile"


class RegistryError(IapeerError):
    """The host index can't be read or written."""

    code = "registry"


class CallerError(IapeerError):
    """The caller could not be identified or is not who it says it is."""

    code = "caller"


class Unauthorized(CallerError):
    """A wrong or missing token; nothing was looked at."""

    code = "unauthorized"


class SendRefused(IapeerError):
    """A message was refused before it was accepted: nothing is stored."""

    code = "refused"


class ControlRefused(IapeerError):
    """A session could not be interrupted or compacted, and why."""

    code = "control_refused"


class PeerLive(IapeerError):
    """The operation needs the peer asleep, and it is running."""

    code = "peer_live"


class RuntimeUnknown(IapeerError):
    """No manifest of that runtime, or the peer does not declare it."""

    code = "unknown_runtime"


class ManifestError(ConfigError):
    """A runtime manifest with a bad or missing key; names file and key."""

    code = "manifest"


class StorageError(IapeerError):
    """The ledger or a file below the root can't be read or written."""

    code = "storage"


class LockBusy(StorageError):
    """Another process holds the lock; the message names it where it is known."""

    code = "busy"


class TmuxError(IapeerError):
    """tmux is missing, too old, or refused a command."""

    code = "tmux"


class SessionGone(TmuxError):
    """The tmux server, the session or its process is no longer there."""

    code = "session_gone"


class LaunchFailed(IapeerError):
    """One session could not be brought up; `code` names why."""

    code = "launch_failed"


class DaemonDown(IapeerError):
    """No daemon answers on this root."""

    code = "daemon_down"


class DaemonRunning(IapeerError):
    """Another daemon owns this root."""

    code = "daemon_running"


class PortBusy(IapeerError):
    """The TCP port belongs to somebody else."""

    code = "port_busy"
