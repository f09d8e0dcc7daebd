"""The daemon in the foreground, and how it is."""

from __future__ import annotations

import time
from typing import Any

from iapeer import __version__
from iapeer.core.errors import IapeerError
from iapeer.core.settings import parse_port
from iapeer.daemon import discovery
from iapeer.registry.memory.slot import read_slot, slot_facts, slot_line
from iapeer.storage.paths import Paths

from . import output, wire
from .context import load_settings
from .grammar import Call

STATUS_TIMEOUT_S = 2.5
"""A daemon that needs longer for a ping is not healthy."""


_COUNTS = {"peers": "peers", "live": "live sessions", "undelivered": "undelivered messages"}


def daemon(call: Call) -> int:
    """Run the router until it is told to end; returns its exit status."""
    port = call.get("port")
    settings = load_settings({"port": None if port is None else parse_port(port, "--port")})

    def ready(line: str) -> None:
        output.warn(line)
        output.flush()

    if call.has("on-demand"):
        from iapeer.host.ondemand import serve_on_demand

        return serve_on_demand(settings, ready)
    from iapeer.host.run import run_daemon

    return run_daemon(settings, ready=ready)


def status(call: Call) -> int:
    """Say whether the daemon answers a real request; returns 0 only then."""
    as_json = call.has("json")
    paths = Paths(load_settings().root)
    slot, now = read_slot(paths.memory_slot), time.time()
    try:
        wire.ask("GET", "/api/v1/ping", timeout_s=STATUS_TIMEOUT_S)
        facts = wire.ask("GET", "/api/v1/status", timeout_s=STATUS_TIMEOUT_S)["status"]
    except IapeerError as error:
        if as_json:
            unhealthy = {"code": error.code, "message": error.message, "hint": error.hint}
            facts = {"memory": slot_facts(slot, now)}
            output.emit({"version": __version__, "healthy": False, "error": unhealthy, **facts})
        else:
            output.say(f"iapeer {__version__}\ndaemon: NOT healthy ({error.message})")
            output.say(slot_line(slot, now))
            if error.hint:
                output.warn(f"hint: {error.hint}")
        return 1
    found = discovery.read(paths.discovery)
    where = {"tcp": found.tcp if found else None, "sock": found.sock if found else None}
    if as_json:
        shown = {"version": __version__, "healthy": True, **where, "daemon": facts}
        output.emit({**shown, "memory": slot_facts(slot, now)})
        return 0
    output.say(f"iapeer {__version__}")
    output.say(f"daemon: healthy @ {' + '.join(filter(None, where.values()))}")
    for line in (*_facts(facts), slot_line(slot, now)):
        output.say(line)
    return 0


def _facts(facts: dict[str, Any]) -> list[str]:
    """Return what is worth a line of a healthy daemon."""
    counts = [f"{word}: {facts[key]}" for key, word in _COUNTS.items() if key in facts]
    lines = [", ".join(counts)] if counts else []
    theirs = facts.get("version")
    if theirs and theirs != __version__:
        lines.append(f"version: the daemon still runs {theirs}, restart it")
    lines.extend(f"problem: {problem}" for problem in facts.get("problems") or ())
    return lines
