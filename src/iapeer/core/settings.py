"""One frozen settings object, made once from defaults < file < environment < flags.

Durations are seconds unless the name ends in `_ms`. The file is `<root>/iapeer.toml`; its keys
are the field names of `Settings`. This module only merges values: reading is the caller's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from . import env
from .errors import ConfigError

DEFAULT_PORT = 8765
"""The contract's fixed port; MCP clients are configured with a URL."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be tuned, with the defaults a user gets."""

    root: Path
    home: Path
    sock_dir: Path
    daemon_socket: Path
    runtimes_dir: Path
    units_dir: Path
    port: int = DEFAULT_PORT
    bearer_token: str = ""
    tmux: str = "tmux"
    daemon_log: bool = False

    max_body_bytes: int = 1 << 20
    """Largest HTTP request body; a message is 16,000 characters, at most 64 KB."""

    boot_deadline_s: float = 240.0
    boot_limit: int = 4
    """Sessions that may be booting at once on this host."""
    boots_before_broken: int = 3
    crashloop_window_s: float = 300.0
    boot_backoff_s: float = 2.0
    """First wait after a failed boot; doubles with jitter up to `boot_backoff_max_s`."""
    boot_backoff_max_s: float = 300.0
    healthy_s: float = 600.0
    """A peer, or a runtime, without a fault for this long has its faults forgotten."""
    peers_before_broken: int = 3
    """Peers of one runtime whose boots fail in a row before the runtime itself counts as broken."""
    idle_s: float = 3600.0
    """A session that nobody used for this long is ended, to be gone on with when it is needed."""
    ephemeral_quiet_s: float = 20.0
    """How long an ephemeral worker that has said its word must be quiet before it is ended."""
    ephemeral_unarmed_idle_s: float = 600.0
    """The same for one that finished its turn without a word. Longer than its longest tool."""
    supervise_log_verbose: bool = False
    agent_config: Literal["", "shared", "isolated"] = ""
    """Whether agent CLIs work in the user's own configuration; empty: as their manifest says."""
    audit_s: float = 60.0
    submit_ms: int = 1500
    """How long one Enter may take to clear the composer before it is pressed again."""
    evidence_s: float = 10.0
    """After this a landed message without evidence is looked at again by the audit."""
    wait_live_s: float = 3.0
    wait_waking_s: float = 20.0
    composer_poll_ms: int = 500
    composer_timeout_ms: int = 120_000
    busy_poll_ms: int = 250
    api_error_hold_s: float = 60.0
    """How long new messages wait after a turn that ended with an API error of unknown length."""
    quota_hold_s: float = 300.0
    """The same where a quota is used up and nobody said until when."""
    compact_done_timeout_ms: int = 290_000
    """How long a compaction may take before it counts as failed (the contract's figure)."""
    ttl_s: float = 7 * 86400.0
    body_retention_s: float = 30 * 86400.0
    metadata_retention_s: float = 180 * 86400.0
    lane_mailbox: int = 1000
    queue_limit: int = 5000
    """Undelivered messages per recipient; one more is refused at send."""
    pair_bucket: float = 300.0
    """Messages one sender may send one recipient at once; then `pair_refill` a second."""
    pair_refill: float = 2.0
    host_bucket: float = 10_000.0
    host_refill: float = 500.0
    repeat_limit: int = 5
    """The same text from one sender to one recipient within `repeat_window_s`; programs exempt."""
    repeat_window_s: float = 60.0
    depth_limit: int = 200
    """Messages that may follow from one another without a person; then one per interval."""
    depth_interval_s: float = 60.0
    notice_coalesce_s: float = 60.0
    busy_timeout_s: float = 5.0
    """How long a ledger connection waits for another process."""

    log_max_bytes: int = 5 << 20
    """delivery.log is rotated at this size; exits.log too."""
    log_keep: int = 5
    lifecycle_log_max_bytes: int = 5 << 20
    lifecycle_log_keep: int = 5
    canary: bool = True
    """Whether a recorder stands beside each tmux server and writes down its death."""
    pane_logs: bool = False
    """Whether what panes print is kept in `logs/lifecycle/`: it has messages in it."""


_POSITIVE_INTS = {
    env.BOOT_LIMIT: "boot_limit",
    env.CRASHLOOP_MAX: "boots_before_broken",
    env.COMPOSER_TIMEOUT_MS: "composer_timeout_ms",
    env.COMPACT_DONE_TIMEOUT_MS: "compact_done_timeout_ms",
    env.COMPOSER_POLL_MS: "composer_poll_ms",
    env.DELIVERY_LOG_MAX_BYTES: "log_max_bytes",
    env.DELIVERY_LOG_KEEP: "log_keep",
    env.LIFECYCLE_LOG_MAX_BYTES: "lifecycle_log_max_bytes",
    env.LIFECYCLE_LOG_KEEP: "lifecycle_log_keep",
}
_POSITIVE_SECONDS = {
    env.BOOT_DEADLINE_SECS: "boot_deadline_s",
    env.AUDIT_SECS: "audit_s",
    env.TTL_SECS: "ttl_s",
    env.IDLE_SECS: "idle_s",
    env.EPHEMERAL_QUIET_SECS: "ephemeral_quiet_s",
    env.EPHEMERAL_UNARMED_IDLE_SECS: "ephemeral_unarmed_idle_s",
    env.CRASHLOOP_WINDOW_SECS: "crashloop_window_s",
}
_PATHS = {
    env.SOCK_DIR: "sock_dir",
    env.DAEMON_SOCKET: "daemon_socket",
    env.RUNTIMES_DIR: "runtimes_dir",
    env.UNITS_DIR: "units_dir",
}
_MAY_BE_ZERO = frozenset(
    {
        "boot_backoff_s",
        "wait_live_s",
        "wait_waking_s",
        "notice_coalesce_s",
        "log_keep",
        "lifecycle_log_keep",
    }
)
"""Anywhere else a zero would stop something for good: no boot, no room, no pause in a loop."""


def make_settings(
    environ: Mapping[str, str],
    file_values: Mapping[str, Any] | None = None,
    *,
    file_name: str = "iapeer.toml",
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge the sources into settings.

    A tuning variable of the environment that is no positive number is ignored in favour of the
    default, as the contract says; a bad port, a bad file key or value is an error that names it.

    Raises ConfigError.
    """
    home = Path(environ.get(env.HOME) or "/nonexistent")
    root = Path(environ[env.ROOT]) if environ.get(env.ROOT) else home / ".iapeer"
    if not root.is_absolute():
        raise ConfigError(f"{env.ROOT}={root} is not an absolute path", hint="give a full path")
    sock = environ.get(env.DAEMON_SOCKET)
    values: dict[str, Any] = {
        "root": root,
        "home": home,
        "sock_dir": Path(environ.get(env.SOCK_DIR) or root / "socks"),
        "daemon_socket": Path(sock) if sock else root / "state" / "iapeer" / "router.sock",
        "runtimes_dir": Path(environ.get(env.RUNTIMES_DIR) or root / "runtimes"),
        "units_dir": Path(environ.get(env.UNITS_DIR) or home / ".config" / "systemd" / "user"),
    }
    values.update(_checked_file(file_values or {}, file_name, values))
    values.update({f: Path(environ[name]) for name, f in _PATHS.items() if environ.get(name)})
    values.update(_from_environment(environ))
    values.update({k: v for k, v in (flags or {}).items() if v is not None})
    return Settings(**values)


def _checked_file(
    file_values: Mapping[str, Any], file_name: str, base: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the file's values, converted; ConfigError names the bad key."""
    try:
        merged = msgspec.convert(
            {**{k: str(v) for k, v in base.items()}, **file_values}, Settings, dec_hook=_path
        )
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{file_name}: {error}", hint="remove the key or give a value of that type"
        ) from None
    for key in file_values:
        value = getattr(merged, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key == "port":
            parse_port(str(value), f"{file_name}: port")
        elif not 0 <= value < float("inf") or (value == 0 and key not in _MAY_BE_ZERO):
            raise ConfigError(
                f"{file_name}: {key} = {value} must be positive and finite",
                hint="remove the key to get the default",
            )
    return {key: getattr(merged, key) for key in file_values}


def _path(kind: type, value: Any) -> Any:
    if kind is Path or issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in _POSITIVE_INTS.items():
        text = environ.get(name, "")
        if text.isascii() and text.isdigit() and int(text) > 0:
            found[field] = int(text)
    for name, field in _POSITIVE_SECONDS.items():
        seconds = _seconds(environ.get(name, ""))
        if seconds is not None:
            found[field] = seconds
    if environ.get(env.PORT):
        found["port"] = parse_port(environ[env.PORT], env.PORT)
    if environ.get(env.BEARER_TOKEN):
        found["bearer_token"] = environ[env.BEARER_TOKEN]
    if environ.get(env.TMUX):
        found["tmux"] = environ[env.TMUX]
    if environ.get(env.DAEMON_LOG):
        found["daemon_log"] = True
    if environ.get(env.SUPERVISE_LOG_VERBOSE, "").lower() in ("1", "true", "yes"):
        found["supervise_log_verbose"] = True
    return found


def _seconds(text: str) -> float | None:
    try:
        value = float(text) if text.isascii() else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def parse_port(text: str, source: str) -> int:
    """Return a TCP port, 0 meaning any free one.

    Raises ConfigError naming `source`.
    """
    if not (text.isascii() and text.isdigit() and 0 <= int(text) <= 65535):
        raise ConfigError(f"{source}={text!r} is no port", hint="use a number from 0 to 65535")
    return int(text)
