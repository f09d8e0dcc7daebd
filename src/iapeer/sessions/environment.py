"""What a session's processes find in their environment; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from iapeer.core import env

_SERVER_KEEPS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
_FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin"
_OURS = (env.BEARER_TOKEN, env.DAEMON_LOG, env.FAULT)
TERM = "xterm-256color"


def server_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a tmux server: an allow list, no secret can be in it.

    Every pane's own environment comes from its hand-over file instead.
    """
    kept = {name: environ[name] for name in _SERVER_KEEPS if environ.get(name)}
    kept.setdefault("PATH", _FALLBACK_PATH)
    # tmux draws `_` for every non-ASCII character in a locale that is not UTF-8.
    if not _is_utf8(kept):
        kept["LC_ALL"] = "C.UTF-8"
    kept["TERM"] = TERM
    return kept


def session_env(
    environ: Mapping[str, str],
    *layers: Mapping[str, str],
    strip: Iterable[str] = env.FOREIGN_PREFIXES,
    own: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment of the program in the pane.

    The daemon's environment without another session's variables and without our secrets, then
    each layer over it, then `own` last, so that no layer can pretend to be another peer.
    Variables with a prefix in `strip` are removed from the daemon's part only: what a peer's own
    launch.env sets is kept.
    """
    prefixes = tuple(strip)
    dropped = {*env.PEER_VARIABLES, *_OURS, "TMUX", "TMUX_PANE"}
    result = {
        name: value
        for name, value in environ.items()
        if name not in dropped and not (prefixes and name.startswith(prefixes))
    }
    for layer in layers:
        result.update(layer)
    result.setdefault("PATH", _FALLBACK_PATH)
    result["TERM"] = TERM
    if not _is_utf8(result):
        result["LC_ALL"] = "C.UTF-8"
    result.update(own)
    return result


def _is_utf8(environ: Mapping[str, str]) -> bool:
    """Both spellings are in use: `de_DE.UTF-8` and `de_DE.utf8`."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return "UTF8" in locale.upper().replace("-", "")
