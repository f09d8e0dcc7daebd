"""The daemon in the foreground, and how it is."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..core.errors import IapeerError
from ..core.settings import parse_port
from . import output, wire
from .context import load_settings
from .grammar import Call

STATUS_TIMEOUT_S = 2.5
"""A daemon that needs longer for a ping is not healthy."""


def daemon(call: Call) -> int:
    """Run the router until it is told to end; returns its exit status."""
    port = call.get("port")
    settings = load_settings({"port": None if port is None else parse_port(port, "--port")})
    from ..host import run_daemon

    def ready(url: str) -> None:
        output.warn(f"[iapeer] daemon READY tcp={url} sock={settings.daemon_socket}")
        output.flush()

    return run_daemon(settings, ready=ready)


def status(call: Call) -> int:
    """Say whether the daemon answers a real request; returns 0 only then."""
    as_json = call.has("json")
    try:
        ping = wire.ask("GET", "/api/v1/ping", timeout_s=STATUS_TIMEOUT_S)
        facts = wire.ask("GET", "/api/v1/status", timeout_s=STATUS_TIMEOUT_S)
    except IapeerError as error:
        if as_json:
            unhealthy = {"code": error.code, "message": error.message, "hint": error.hint}
            output.emit({"version": __version__, "healthy": False, "error": unhealthy})
        else:
            output.say(f"iapeer {__version__}\ndaemon: NOT healthy ({error.message})")
            if error.hint:
                output.warn(f"hint: {error.hint}")
        return 1
    if as_json:
        output.emit({"version": __version__, "healthy": True, "daemon": facts})
    else:
        output.say(f"iapeer {__version__}\n{_tell(ping, facts)}")
    return 0


def _tell(ping: dict[str, Any], facts: dict[str, Any]) -> str:
    return str((ping, facts))
